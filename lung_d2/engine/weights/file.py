"""A weights file: safetensors that hold a whole model, with its config, its categories and where it comes from.

``__metadata__`` of its header, texts by name::

    format                  pt, as the tools of safetensors write it
    lung_d2.format_version  1
    lung_d2.config          YAML: the whole config, without paths
    lung_d2.categories      JSON: Categories.to_coco(), in the order of the classes; id and name alone in older files
    lung_d2.input           JSON: how HU become the network's images: grey levels, window, channels, mean, std
    lung_d2.provenance      JSON: see lung_d2.engine.weights.export

The format itself is https://github.com/huggingface/safetensors: 8 bytes with the length of a JSON header, the header,
the numbers. Nothing in it can run. A file may come from anyone: whatever is wrong with it is one error.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathHandler, PathManager
from iopath.common.file_io import get_cache_dir
from safetensors import SafetensorError, safe_open

from lung_d2.categories import Categories
from lung_d2.config.checks import as_plain, value_of
from lung_d2.config.keys import add_lung_config, input_settings
from lung_d2.config.loading import parse_config
from lung_d2.engine.weights.names import SCHEME, address_of, check_digest, require_weights
from lung_d2.errors import CheckpointError, LungD2Error, OutputError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

FORMAT_VERSION = "1"
PREFIX = "lung_d2."
ARCHITECTURE = "GeneralizedRCNN"
"""What a weights file holds; other architectures may open files while they are built."""

_MAX_HEADER_BYTES = 4 << 20  # a model of this project has about 60 KB
_MAX_FILE_BYTES = 2 << 30
_READ_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(LungD2Error, SafetensorError),
)
"""What the reader of a file, or a layer that is built by its config, may raise for a file of unknown origin."""
_FREE = re.compile(
    r"MODEL\.(WEIGHTS|DEVICE|LOAD_PROPOSALS|BACKBONE\.FREEZE_AT)"
    r"|.*(LOSS|_THRESH|TOPK|SMOOTH_L1_BETA|BATCH_SIZE_PER_IMAGE|POSITIVE_FRACTION|IOU_LABELS|PROPOSAL_APPEND_GT"
    r"|TRAIN_ON_PRED_BOXES|MIN_SIZE|FED_LOSS|MULT_PROPOSAL_SCORE).*"
)
"""Keys under MODEL that do not change the network: how it is trained, scored, and what is kept of its output."""
_BOUNDS = (
    (re.compile(r"INPUT\..*SIZE.*"), 4096),  # pixels
    (re.compile(r".*POOLER_RESOLUTION"), 256),  # pixels
    (re.compile(r".*\.NUM_(CONV|FC|STACKED_CONVS)|.*\.CONV_DIMS"), 4096),  # layers, channels
    (re.compile(r"TEST\..*"), 10_000),  # detections
    (re.compile(r"MODEL\..*"), 1 << 16),
)
_MACHINE_KEYS = (
    *("OUTPUT_DIR", "MODEL.WEIGHTS", "MODEL.DEVICE"),
    *("DATASETS.PROPOSAL_FILES_TRAIN", "DATASETS.PROPOSAL_FILES_TEST"),
)
"""Keys that name a folder, a file or a device."""


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that has been checked; its numbers are read when asked for.

    Attributes:
        path: The file.
        sha256: Its hash.
        config_text: YAML of the whole config; what names a folder, a file or a device is cleared.
        settings: What a config has to share with it, see :func:`bound_settings`.
        categories: What the model tells apart.
        provenance: See :mod:`lung_d2.engine.weights.export`.
        shapes: Of the parameters, by name.
    """

    path: Path
    sha256: str
    config_text: str
    settings: Mapping[str, Any]
    categories: Categories
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


def config_of(weights: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Return the config that a weights file holds, as for ``DefaultPredictor(config_of("NAME"))`` of Detectron2.

    Args:
        weights: A ``.safetensors`` file, or a name of :func:`lung_d2.engine.weights.names.list_weights`.
        opts: ``KEY VALUE`` pairs that override it.

    Returns:
        The config, with ``MODEL.WEIGHTS`` as an address that Detectron2's ``DefaultPredictor`` loads as well. Where its
        test set is not registered here, the metadata of that name tells the classes and colours for a ``Visualizer``.

    Raises:
        CheckpointError: There is no such file or name, or it cannot be used.
        ConfigError: An override cannot be used.
    """
    file = read_weights_file(require_weights(weights))
    cfg = parse_config(file.config_text, file.path, opts)
    cfg.MODEL.WEIGHTS = address_of(weights)
    logger.info("device: %s", cfg.MODEL.DEVICE)
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0]) if cfg.DATASETS.TEST else None
    if metadata is not None and metadata.get("thing_classes") is None:
        colors = [category.color for category in file.categories]
        metadata.set(thing_classes=file.categories.names, thing_colors=colors, categories=file.categories)
    return cfg


def read_weights_file(path: Path) -> WeightsFile:
    """Open a weights file and check everything but its numbers; an unchanged file is not checked again.

    Raises:
        CheckpointError: It is missing, broken, of another tool or format, contradicts itself, or its SHA-256 is not the
            known one.
    """
    if not path.is_file():
        raise CheckpointError(path, found="no such file", remedy="name an existing file")
    return _read(path, check_digest(path))


@functools.lru_cache(maxsize=4)
def _read(path: Path, digest: str) -> WeightsFile:
    _check_sizes(path)
    with _named_errors(path), safe_open(path, framework="pt") as file:
        texts = file.metadata() or {}
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  not a mapping
    if (version := texts.get(f"{PREFIX}format_version")) != FORMAT_VERSION:
        found = "not weights of lung_d2" if version is None else f"format {version[:20]!r}"
        raise CheckpointError(
            path, found=found, expected=f"format {FORMAT_VERSION}", remedy="write it with tools/export_weights.py"
        )
    with _named_errors(path, f"{PREFIX}config: not usable", "the whole config of a model"):
        cfg = parse_config(texts.get(f"{PREFIX}config", ""), path)
    check_trusted(cfg, path)
    if input_settings(cfg) != _read_json(path, texts, "input", dict):
        raise untrusted(path, f"{PREFIX}input that contradicts its config", "the same in both")
    categories = _read_categories(path, texts, cfg)
    provenance = _read_json(path, texts, "provenance", dict)
    _check_parameters(path, cfg, shapes)
    return WeightsFile(path, digest, portable_config(cfg), bound_settings(cfg), categories, provenance, shapes)


def check_finite(tensors: Mapping[str, torch.Tensor], where: str | Path) -> None:
    """Refuse parameters with which a network would silently find nothing.

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


def bound_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return the keys that have to be the same wherever the weights of a model are used.

    Returns:
        Values by key, with lists for tuples: those of :func:`lung_d2.config.input_settings`, and every key under
        ``MODEL`` except those that say how it is trained, how its output is scored or what is kept of it. A new key
        is among them unless it is named here.
    """
    model = {key: value for key, value in _leaves(cfg) if key.startswith("MODEL.") and not _FREE.fullmatch(key)}
    return {**{key: as_plain(value) for key, value in model.items()}, **input_settings(cfg)}


def portable_config(cfg: CfgNode) -> str:
    """Return the whole config as YAML that fits any machine: keys that name a place or a device get their default."""
    defaults, plain = get_cfg(), cfg.clone()
    add_lung_config(defaults)
    plain.defrost()
    for key in _MACHINE_KEYS:
        parent, leaf = key.rpartition(".")[::2]
        (value_of(plain, parent) if parent else plain)[leaf] = value_of(defaults, key)
    plain.MODEL.WEIGHTS = ""
    return yaml.dump(yaml.safe_load(plain.dump()), Dumper=_PlainDumper)


def check_trusted(cfg: CfgNode, where: object) -> None:
    """Refuse a config that should not be built: not of a detector, or with numbers that would fill the memory.

    Raises:
        CheckpointError: It names the key.
    """
    if (found := cfg.MODEL.META_ARCHITECTURE) != ARCHITECTURE:
        raise CheckpointError(
            str(where),
            found=f"MODEL.META_ARCHITECTURE {str(found)[:80]!r}",
            expected=ARCHITECTURE,
            remedy="use weights of a whole detector",
        )

    for key, value in _leaves(cfg):
        bound = next((bound for keys, bound in _BOUNDS if keys.fullmatch(key)), sys.float_info.max)
        for number in _numbers(value):
            if not abs(number) <= bound:  # also true of NaN
                huge = isinstance(number, int) and number.bit_length() > 64  # Python may refuse to print it
                raise CheckpointError(
                    str(where),
                    found=f"{key} of more than 64 bits" if huge else f"{key} {number}",
                    expected=f"at most {bound:g}",
                    remedy="do not trust this file",
                )


class WeightsHandler(PathHandler):  # type: ignore[misc]
    """Gives Detectron2's own classes a weights file as a ``.pth``, kept in Detectron2's download cache.

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


PathManager.register_handler(WeightsHandler(), allow_override=True)


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated values out, since a reader refuses aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _check_sizes(path: Path) -> None:
    """Refuse what would fill the memory, before the library believes the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        declared = int.from_bytes(file.read(8), "little")
    if size > _MAX_FILE_BYTES or not 2 <= declared <= min(_MAX_HEADER_BYTES, max(size - 8, 0)):
        limits = f"at most {_MAX_FILE_BYTES}, of which the header has at most {_MAX_HEADER_BYTES}"
        raise untrusted(path, f"a header of {declared} bytes in a file of {size}", limits)


def _read_categories(path: Path, texts: Mapping[str, str], cfg: CfgNode) -> Categories:
    records = _read_json(path, texts, "categories", list)
    with _named_errors(path, "categories that cannot be read", "those of a data set"):
        categories = Categories.from_coco(records, path)
    if len(categories) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
        raise untrusted(path, f"{len(categories)} categories", f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES}, as its config says")
    return categories


def _check_parameters(path: Path, cfg: CfgNode, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file whose config describes another model, found on the meta device, which needs no memory."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"
    with _named_errors(path, "a config that builds no model", "a whole model"), torch.device("meta"):
        made = {name: tuple(value.shape) for name, value in build_model(cfg).state_dict().items()}
    if odd := sorted(name for name in {*made, *shapes} if made.get(name) != shapes.get(name)):
        found = f"{len(odd)} parameters that do not fit its config, {odd[0][:200]} first"
        raise untrusted(path, found, "a whole model")


def _read_json(path: Path, texts: Mapping[str, str], name: str, kind: type) -> Any:
    try:
        content = json.loads(texts.get(f"{PREFIX}{name}", ""))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, kind):
        expected = f"JSON of a {kind.__name__}, as tools/export_weights.py writes"
        raise untrusted(path, f"{PREFIX}{name} that cannot be read", expected)
    return content


@contextmanager
def _named_errors(path: Path, found: str = "broken", expected: str = "a whole safetensors file") -> Iterator[None]:
    try:
        yield
    except _READ_ERRORS as error:
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        raise untrusted(path, f"{found} ({reason.splitlines()[0][:200]})", expected) from error


def untrusted(path: str | Path, found: str, expected: str = "model weights only") -> CheckpointError:
    """Return the error for a file that is broken, or that someone has tampered with."""
    remedy = "get it from its source again; nothing in it ran"
    return CheckpointError(path, found=found, expected=expected, remedy=remedy)


def _leaves(node: CfgNode, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, type(node)):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
