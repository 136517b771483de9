"""Where a model is from: what tells whether two results are of the same one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detectron2.utils.file_io import PathManager

from lung_d2.engine.weights.file import read_weights_file
from lung_d2.engine.weights.names import SUFFIX, find_weights
from lung_d2.errors import CheckpointError

if TYPE_CHECKING:
    from detectron2.config import CfgNode


@dataclass(frozen=True)
class ModelOrigin:
    """Where a model is from.

    Attributes:
        config_text: The config as YAML, without keys that are folders, files or devices.
        weights: The file of the weights.
        provenance: JSON of what a weights file says of itself, see :mod:`lung_d2.engine.weights.provenance`; empty for
            a checkpoint.
    """

    config_text: str
    weights: Path
    provenance: str = ""

    @classmethod
    def of(cls, cfg: CfgNode) -> ModelOrigin:
        """Return where the model of a config is from; weights with an address are fetched.

        Raises:
            CheckpointError: There is no such file, or it is a weights file that cannot be used.
        """
        path = find_weights(cfg.MODEL.WEIGHTS) or Path(PathManager.get_local_path(cfg.MODEL.WEIGHTS))
        if not path.is_file():
            raise CheckpointError(path, found="no such file", remedy="name a file that is there")
        told = json.dumps(read_weights_file(path).provenance) if path.suffix == SUFFIX else ""
        return cls(_portable(cfg), path, told)


def _portable(cfg: CfgNode) -> str:
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.WEIGHTS, plain.MODEL.DEVICE, plain.OUTPUT_DIR = "", "", ""
    return str(plain.dump())
