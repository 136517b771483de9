"""Weights by file or name, for scripts: the config comes with them.

Example::

    cfg = lung_d2.engine.weights.config_of("NAME")  # or "file.safetensors"
    instances = DefaultPredictor(cfg)(image)["instances"]  # Detectron2's own
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir

from lung_d2.config import parse_config
from lung_d2.engine.weights_file import WeightsFile, read_weights_file
from lung_d2.engine.weights_names import SCHEME, address_of, require_weights
from lung_d2.errors import CheckpointError, OutputError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_BUILD_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError)
_BUILD_ERRORS += (TypeError, ValueError)  # type: ignore[assignment]


def config_of(weights: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Return the config that a weights file holds.

    Args:
        weights: A ``.safetensors`` file, or a name of :func:`lung_d2.engine.weights_names.list_weights`.
        opts: ``KEY VALUE`` pairs that override it.

    Returns:
        The config, with ``MODEL.WEIGHTS`` as an address that Detectron2's ``DefaultPredictor`` loads as well.

    Raises:
        CheckpointError: There is no such file or name, or it is broken, or of another config than it says.
        ConfigError: An override cannot be used.
    """
    path = require_weights(weights)
    _check_parameters(read_weights_file(path))
    cfg = parse_config(read_weights_file(path).config_text, path, opts)
    cfg.MODEL.WEIGHTS = address_of(weights)
    return cfg


def _check_parameters(file: WeightsFile) -> None:
    """Refuse a file whose config makes another model: checked without memory for it, before it is built in earnest."""
    cfg = parse_config(file.config_text, file.path)
    cfg.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            shapes = {name: tuple(value.shape) for name, value in build_model(cfg).state_dict().items()}
    except _BUILD_ERRORS as error:  # the config is of any origin, and a layer may refuse it with any of these
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _of_another(file, f"a config that builds no model ({reason[:200]})") from error
    odd = sorted(name for name in {*shapes, *file.shapes} if shapes.get(name) != file.shapes.get(name))
    if odd:
        raise _of_another(file, f"{len(odd)} parameters that are not those of its config, {odd[0][:200]} first")


def _of_another(file: WeightsFile, found: str) -> CheckpointError:
    return CheckpointError(file.path, found=found, expected="a model whole", remedy="get it from its source again")


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
                staging.unlink(missing_ok=True)
                raise OutputError(copy, found="cannot be written", remedy="set FVCORE_CACHE to another folder") from error
        return str(copy)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return open(self._get_local_path(path), mode, buffering)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return require_weights(path).is_file()

    _exists = _isfile


PathManager.register_handler(WeightsHandler(), allow_override=True)
