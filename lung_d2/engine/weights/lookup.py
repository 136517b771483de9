"""Weights by file or name, for scripts: the config comes with them.

Example::

    cfg = lung_d2.engine.weights.lookup.config_of("NAME")  # or "file.safetensors"
    instances = DefaultPredictor(cfg)(image)["instances"]  # Detectron2's own
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir

from lung_d2.config.keys import parse_config
from lung_d2.engine.weights.file import read_weights_file
from lung_d2.engine.weights.names import SCHEME, address_of, require_weights
from lung_d2.errors import OutputError

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def config_of(weights: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Return the config that a weights file holds.

    Args:
        weights: A ``.safetensors`` file, or a name of :func:`lung_d2.engine.weights.names.list_weights`.
        opts: ``KEY VALUE`` pairs that override it.

    Returns:
        The config, with ``MODEL.WEIGHTS`` as an address that Detectron2's ``DefaultPredictor`` loads as well.

    Raises:
        CheckpointError: There is no such file or name, or it cannot be used.
        ConfigError: An override cannot be used.
    """
    file = read_weights_file(require_weights(weights))
    cfg = parse_config(file.config_text, file.path, opts)
    cfg.MODEL.WEIGHTS = address_of(weights)
    return cfg


class WeightsHandler(PathHandler):  # type: ignore[misc]
    """Gives Detectron2's own classes a weights file as a ``.pth``, kept in the cache of what Detectron2 fetches.

    :class:`lung_d2.engine.LungCheckpointer` reads the file itself.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [SCHEME]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        file = read_weights_file(require_weights(path))
        copy = Path(get_cache_dir(), "lung_d2", f"{file.sha256}.pth")
        if force or not copy.is_file():
            staging = copy.with_name(f"{copy.name}.{os.getpid()}")
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                torch.save({"model": file.read_tensors()}, staging)
                os.replace(staging, copy)
            except (OSError, RuntimeError) as error:
                with suppress(OSError):
                    staging.unlink(missing_ok=True)
                raise OutputError(
                    copy, found="cannot be written", remedy="set FVCORE_CACHE to another folder"
                ) from error
        return str(copy)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return require_weights(path).is_file()

    _exists = _isfile


PathManager.register_handler(WeightsHandler(), allow_override=True)
