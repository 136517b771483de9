"""A weights file: safetensors that hold a model whole, with its config, its categories and where it is from.

``__metadata__`` of its header, texts by name::

    format                  pt, as the tools of safetensors write it
    lung_d2.format_version  1
    lung_d2.config          YAML: the whole config, without paths
    lung_d2.categories      JSON: [{"id", "name"}], in the order of the classes
    lung_d2.input           JSON: how HU become the network's pictures: grey levels, window, channels, mean, std
    lung_d2.provenance      JSON: see lung_d2.engine.weights.provenance

The format itself is https://github.com/huggingface/safetensors: 8 bytes with the length of a JSON header, the header,
the numbers. Nothing of it can run. What is read here may come from anyone: whatever is wrong with it is one error.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from detectron2.modeling import build_model
from safetensors import SafetensorError, safe_open

from lung_d2.categories import CATEGORIES
from lung_d2.config.keys import input_settings, parse_config
from lung_d2.engine.weights.names import check_digest
from lung_d2.engine.weights.settings import (
    bound_settings,
    check_architecture,
    check_bounds,
    clear_places,
    portable_config,
)
from lung_d2.errors import CheckpointError, ConfigError, LungD2Error

if TYPE_CHECKING:
    from detectron2.config import CfgNode

FORMAT_VERSION = "1"
PREFIX = "lung_d2."
DTYPES = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64}
"""As safetensors calls them: weights, what fp16 would harm, and the counters of batch norm."""
_BUILD_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    LungD2Error,
)
"""What a layer may refuse a config with; that of a file is of any origin."""
_MAX_HEADER_BYTES = 4 << 20  # a model of this project has about 60 KB
_MAX_FILE_BYTES = 2 << 30


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that was checked; its numbers are read when asked for.

    Attributes:
        path: Where it is.
        sha256: Of the file.
        config_text: YAML of the whole config; whatever names a folder, a file or an address was cleared.
        settings: What a config has to share with it, see :func:`~lung_d2.engine.weights.settings.bound_settings`.
        provenance: See :mod:`lung_d2.engine.weights.provenance`.
        shapes: Of the parameters, by name.
    """

    path: Path
    sha256: str
    config_text: str
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]

    def read_tensors(self) -> dict[str, torch.Tensor]:
        """Return the parameters by name, in the types of the file.

        Raises:
            CheckpointError: The file is broken, or a parameter holds NaN or infinity.
        """
        with _named_errors(self.path), safe_open(self.path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in self.shapes}
        check_finite(tensors, self.path)
        return tensors


def read_weights_file(path: Path) -> WeightsFile:
    """Open a weights file and check all of it but its numbers; one that was not changed since is not checked again.

    Raises:
        CheckpointError: There is none, it is broken, of another tool, format or categories, it contradicts itself, or
            its SHA-256 is not the one that is known of it.
    """
    if not path.is_file():
        raise CheckpointError(path, found="no such file", remedy="name a file that is there")
    return _read(path, check_digest(path))


@functools.lru_cache(maxsize=4)
def _read(path: Path, digest: str) -> WeightsFile:
    _check_sizes(path)
    with _named_errors(path), safe_open(path, framework="pt") as file:
        texts = file.metadata() or {}
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no mapping
        kinds = {part.get_dtype() for part in slices.values()}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    if kinds - set(DTYPES):
        raise _broken(path, f"numbers of type {min(kinds - set(DTYPES))}", ", ".join(DTYPES))
    if (version := texts.get(f"{PREFIX}format_version")) != FORMAT_VERSION:
        found = "no weights of lung_d2" if version is None else f"format {version[:20]!r}"
        raise CheckpointError(
            path, found=found, expected=f"format {FORMAT_VERSION}", remedy="write it with tools/export_weights.py"
        )
    categories, inputs = _read_json(path, texts, "categories", list), _read_json(path, texts, "input", dict)
    if categories != describe_categories():
        raise _broken(path, f"categories {str(categories)[:200]}", f"{describe_categories()}, in this order")
    provenance = _read_json(path, texts, "provenance", dict)
    cfg = _read_config(path, texts.get(f"{PREFIX}config", ""))
    if json.loads(json.dumps(input_settings(cfg))) != inputs:
        raise _broken(path, f"{PREFIX}input that contradicts its config", "the same in both")
    _check_parameters(path, cfg, shapes)
    return WeightsFile(path, digest, portable_config(cfg), bound_settings(cfg), provenance, shapes)


def check_finite(tensors: Mapping[str, torch.Tensor], where: str | Path) -> None:
    """Refuse parameters with which a network finds nothing, and says so with a good conscience.

    Raises:
        CheckpointError: A parameter holds NaN or infinity.
    """
    odd = next((name for name, value in tensors.items() if not bool(torch.isfinite(value).all())), None)
    if odd is not None:
        raise CheckpointError(
            where,
            found=f"NaN or infinity in {odd}",
            expected="finite numbers",
            remedy="take a checkpoint of a run that converged, or get it from its source again",
        )


def describe_categories() -> list[dict[str, Any]]:
    """Return the categories as a weights file tells them, in the order of the classes."""
    return [{"id": category.coco_id, "name": category.name} for category in CATEGORIES]


def _check_sizes(path: Path) -> None:
    """Refuse what would fill the memory before the library takes the file at its word."""
    size = path.stat().st_size
    with path.open("rb") as file:
        declared = int.from_bytes(file.read(8), "little")
    if size > _MAX_FILE_BYTES:
        raise _broken(path, f"{size} bytes", f"at most {_MAX_FILE_BYTES}")
    if not 2 <= declared <= min(_MAX_HEADER_BYTES, size - 8):
        limit = min(_MAX_HEADER_BYTES, max(size - 8, 2))
        raise _broken(path, f"a header of {declared} bytes in a file of {size}", f"2 to {limit}")


def _read_config(path: Path, text: str) -> CfgNode:
    try:
        cfg = parse_config(text, path)
    except ConfigError as error:
        place = "" if error.where == str(path) else f" {error.where}"
        raise _broken(path, f"{PREFIX}config:{place} {error.found[:200]}", error.expected) from error
    check_architecture(cfg, path)
    check_bounds(cfg, path)
    return clear_places(cfg)


def _check_parameters(path: Path, cfg: CfgNode, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file whose config makes another model: found without memory for it, before it is built in earnest."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            made = {name: tuple(value.shape) for name, value in build_model(cfg).state_dict().items()}
    except _BUILD_ERRORS as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _broken(path, f"a config that builds no model ({reason[:200]})", "a model whole") from error
    if odd := sorted(name for name in {*made, *shapes} if made.get(name) != shapes.get(name)):
        found = f"{len(odd)} parameters that are not those of its config, {odd[0][:200]} first"
        raise _broken(path, found, "a model whole")


def _read_json(path: Path, texts: Mapping[str, str], name: str, kind: type) -> Any:
    try:
        content = json.loads(texts.get(f"{PREFIX}{name}", ""))
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"{PREFIX}{name} that is no JSON", "metadata of tools/export_weights.py") from error
    if not isinstance(content, kind):
        raise _broken(path, f"{PREFIX}{name} that is no {kind.__name__}", "metadata of tools/export_weights.py")
    return content


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _broken(path, f"broken ({reason[:200]})", "a whole file of safetensors") from error


def _broken(path: Path, found: str, expected: str) -> CheckpointError:
    return CheckpointError(
        path, found=found, expected=expected, remedy="get it from its source again; nothing of it ran"
    )
