"""What of a config belongs to the weights: it travels with them, and has to be the same wherever they are used."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from lung_d2.config.keys import input_settings
from lung_d2.errors import CheckpointError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

_FREE = re.compile(
    r"MODEL\.(WEIGHTS|DEVICE|LOAD_PROPOSALS|BACKBONE\.FREEZE_AT)"
    r"|.*(LOSS|_THRESH|TOPK|SMOOTH_L1_BETA|BATCH_SIZE_PER_IMAGE|POSITIVE_FRACTION|IOU_LABELS|PROPOSAL_APPEND_GT"
    r"|TRAIN_ON_PRED_BOXES|MIN_SIZE|FED_LOSS|MULT_PROPOSAL_SCORE).*"
)
"""Keys under MODEL that leave the network what it is: what is trained of it and how, and how its output is scored and
what is kept of it."""

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
ARCHITECTURE = "GeneralizedRCNN"
"""What a weights file holds; others in the registry may open files while they are built."""

_ADDRESS = re.compile(
    r"(?<!\w)(?:https?|detectron2)://[\w.-]+(?::\d+)?(?:[/?#][^\s@\\,;\"'<>()\[\]]*)?(?![^\s,;\"'<>()\[\]])",
    re.ASCII | re.IGNORECASE,
)
"""A public address: its host has no user before it."""
_NO_PLACE = re.compile(
    r"\band/or\b|(?<![\w./])\d[\d.]*(?:/\d[\d.]*)+(?![\w/])|(?<=\s)/(?=\s)|\b(?:segm|bbox)/AP", re.ASCII | re.IGNORECASE
)
"""Slashes between words, numbers, and in the names of Detectron2's figures."""
_PLACE = re.compile(r"[/\\]|\w@[\w.-]+:\S", re.ASCII)


def bound_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return the keys that have to be the same wherever the weights of a model are used.

    Returns:
        Values by key, with lists for tuples: those of :func:`lung_d2.config.input_settings`, and every key under
        ``MODEL`` but those that say how it is trained, how its output is scored or what is kept of it. A key that is
        new is among them, unless named here.
    """
    model = {key: value for key, value in _leaves(cfg) if key.startswith("MODEL.") and not _FREE.fullmatch(key)}
    plain: dict[str, Any] = json.loads(json.dumps({**model, **input_settings(cfg)}))
    return plain


def portable_config(cfg: CfgNode) -> str:
    """Return the whole config as YAML that fits any machine.

    Keys that are folders, files or devices, or that name a place, get their default.
    """
    return yaml.dump(yaml.safe_load(clear_places(cfg).dump()), Dumper=_PlainDumper)


def clear_places(cfg: CfgNode) -> CfgNode:
    """Return a copy of a config in which no key names a folder, a file, a device or what to fetch."""
    from detectron2.config import get_cfg

    from lung_d2.config.keys import add_lung_config

    defaults, plain = get_cfg(), cfg.clone()
    add_lung_config(defaults)
    plain.defrost()
    known = dict(_leaves(defaults))
    for key, value in _leaves(plain):
        if key in _MACHINE_KEYS or any(names_place(text) for text in _texts(value)):
            parent, _, leaf = key.rpartition(".")
            node = plain
            for part in filter(None, parent.split(".")):
                node = node[part]
            node[leaf] = known[key]
    plain.MODEL.WEIGHTS = ""
    return plain


def names_place(text: str) -> bool:
    """Return whether a text may hold a path, or an address with a user.

    Any slash but that of a public address, of a number, of ``and/or`` or of a figure's name counts, and any backslash;
    a name of a user or a machine that stands alone cannot be told from other words.
    """
    return bool(_PLACE.search(_NO_PLACE.sub(" ", _ADDRESS.sub(" ", text))))


def check_architecture(cfg: CfgNode, where: object) -> None:
    """Refuse a config of anything but a detector, before it is built.

    Raises:
        CheckpointError: Naming the key.
    """
    if (found := cfg.MODEL.META_ARCHITECTURE) != ARCHITECTURE:
        raise CheckpointError(
            str(where),
            found=f"MODEL.META_ARCHITECTURE {str(found)[:80]!r}",
            expected=ARCHITECTURE,
            remedy="use weights of a whole detector",
        )


def check_bounds(cfg: CfgNode, where: object) -> None:
    """Refuse what is no finite number, or would fill the memory, where a config comes of any source.

    Raises:
        CheckpointError: Naming the key.
    """
    for key, value in _leaves(cfg):
        bound = next((bound for keys, bound in _BOUNDS if keys.fullmatch(key)), sys.float_info.max)
        for number in _numbers(value):
            if not abs(number) <= bound:  # NaN is neither
                huge = isinstance(number, int) and number.bit_length() > 64  # which Python may refuse to write out
                raise CheckpointError(
                    str(where),
                    found=f"{key} of more than 64 bits" if huge else f"{key} {number}",
                    expected=f"at most {bound:g}",
                    remedy="do not trust this file",
                )


class _PlainDumper(yaml.SafeDumper):
    """Writes what stands twice twice: a reader refuses aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _leaves(node: CfgNode, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, type(node)):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
