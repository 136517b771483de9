"""A weights file: safetensors that hold a model whole, with its config, its categories and where it is from.

``__metadata__`` of its header, texts by name::

    format                  pt, as the tools of safetensors write it
    lung_d2.format_version  1
    lung_d2.config          YAML: the whole config, without paths
    lung_d2.categories      JSON: [{"id", "name"}], in the order of the classes
    lung_d2.input           JSON: how HU become the network's pictures: grey levels, window, channels, mean, std, anchors
    lung_d2.provenance      JSON: see lung_d2.engine.weights_provenance

The format itself is https://github.com/huggingface/safetensors: 8 bytes with the length of a JSON header, the header,
the numbers. Nothing of it can run. What is read here may come from anyone: whatever is wrong with it is one error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lung_d2.categories import CATEGORIES
from lung_d2.config import input_settings, parse_config
from lung_d2.engine.weights_names import check_digest
from lung_d2.engine.weights_settings import bound_settings, check_bounds
from lung_d2.errors import CheckpointError, ConfigError

FORMAT_VERSION = "1"
PREFIX = "lung_d2."
DTYPES = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64}
"""As safetensors calls them: weights, what fp16 would harm, and the counters of batch norm."""
_MAX_HEADER_BYTES = 4 << 20  # a model of this project has about 60 KB
_MAX_FILE_BYTES = 2 << 30


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that was checked; its numbers are read when asked for.

    Attributes:
        path: Where it is.
        sha256: Of the file.
        config_text: YAML of the whole config.
        provenance: See :mod:`lung_d2.engine.weights_provenance`.
        shapes: Of the parameters, by name.
    """

    path: Path
    sha256: str
    config_text: str
    provenance: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]

    def settings(self) -> dict[str, Any]:
        """Return what a config has to share with it, see :func:`~lung_d2.engine.weights_settings.bound_settings`."""
        return bound_settings(parse_config(self.config_text, self.path))

    def read_tensors(self) -> dict[str, torch.Tensor]:
        """Return the parameters by name, in the types of the file."""
        with _named_errors(self.path), safe_open(self.path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in self.shapes}


def read_weights_file(path: Path) -> WeightsFile:
    """Open a weights file and check all of it but its numbers.

    Raises:
        CheckpointError: There is none, it is broken, of another tool, format or categories, it contradicts itself, or
            its SHA-256 is not the one that is known of it.
        ConfigError: Its config cannot be used.
    """
    if not path.is_file():
        raise CheckpointError(path, found="no such file", remedy="name a file that is there")
    _check_sizes(path)
    digest = check_digest(path)
    with _named_errors(path), safe_open(path, framework="pt") as file:
        texts = file.metadata() or {}
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no mapping
        kinds = {part.get_dtype() for part in slices.values()}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    if kinds - set(DTYPES):
        raise _broken(path, f"numbers of type {min(kinds - set(DTYPES))}", f"{', '.join(DTYPES)}")
    if (version := texts.get(f"{PREFIX}format_version")) != FORMAT_VERSION:
        found = "no weights of lung_d2" if version is None else f"format {version[:20]!r}"
        raise CheckpointError(
            path, found=found, expected=f"format {FORMAT_VERSION}", remedy="write it with tools/export_weights.py"
        )
    found = WeightsFile(
        path, digest, texts.get(f"{PREFIX}config", ""), _read_json(path, texts, "provenance", dict), shapes
    )
    _check_meaning(found, _read_json(path, texts, "categories", list), _read_json(path, texts, "input", dict))
    return found


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


def _check_meaning(file: WeightsFile, categories: list[Any], inputs: dict[str, Any]) -> None:
    if categories != describe_categories():
        expected = f"{describe_categories()}, in this order"
        raise _broken(file.path, f"categories {str(categories)[:200]}", expected)
    try:
        cfg = parse_config(file.config_text, f"{file.path}, {PREFIX}config")
    except ConfigError as error:
        raise CheckpointError(
            error.where, found=error.found, expected=error.expected, remedy="do not trust this file"
        ) from error
    check_bounds(cfg, file.path)
    if json.loads(json.dumps(input_settings(cfg))) != inputs:
        raise _broken(file.path, f"{PREFIX}input that contradicts its config", "the same in both")


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
