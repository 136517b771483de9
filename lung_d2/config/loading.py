"""Load a config: YAML and command lines hold nothing but data, and each error is one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lung_d2.config.checks import check_config
from lung_d2.config.keys import RETIRED_KEYS, add_lung_config, scale_to_batch
from lung_d2.errors import ConfigError, detectron2_missing
from lung_d2.processes import count_cores

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

MOST_LOADERS = 8
"""Processes that load slices for a GPU, at most."""

_MOST_LETTERS, _MOST_DEPTH = 1 << 16, 20  # a whole config has 7,000 letters and 6 levels


def load_config(path: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Read a config file of lung_d2.

    Args:
        path: A YAML file; its ``_BASE_`` files are read as safely as itself.
        opts: ``KEY VALUE`` pairs that override the file.

    Returns:
        The config: rate and schedule scaled to the batch, ``MODEL.DEVICE`` the CPU where there is no GPU.

    Raises:
        ConfigError: The file is missing or broken, holds a Python tag, or names an unknown key.
        DependencyError: Detectron2 is not installed.
    """
    cfg, path = _default_config(), Path(path)
    if not path.is_file():
        raise ConfigError(
            path, found="no such file", expected="a YAML config", remedy="see configs/ for those there are"
        )
    _check_bases(path)
    try:
        with _named_errors(path):
            # Detectron2's default is allow_unsafe=True, with which a !!python tag runs code.
            cfg.merge_from_file(str(path), allow_unsafe=False)
    except OSError as error:
        remedy = "correct _BASE_, which is relative to the file"
        raise ConfigError(path, found=_first_line(error), remedy=remedy) from error
    cfg = _finish(cfg, opts)
    logger.info("device: %s", cfg.MODEL.DEVICE)
    return cfg


def parse_config(text: str, where: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Read a whole config from a file of another kind.

    Args:
        text: YAML; it cannot name another file, and does not expand when it is read.
        where: What holds it, for errors.
        opts: ``KEY VALUE`` pairs that override it.

    Returns:
        The same as :func:`load_config`.

    Raises:
        ConfigError: It is broken, holds a tag, an alias or a ``_BASE_``, or names an unknown key.
    """
    import yaml
    from fvcore.common.config import BASE_KEY

    cfg = _default_config()
    with _named_errors(where):
        _check_plain(text)
        content = yaml.safe_load(text)
        if not isinstance(content, dict) or BASE_KEY in content:
            raise ValueError(f"not a mapping of keys, or one with a {BASE_KEY}")
        _drop_retired(content)
        cfg.merge_from_other_cfg(type(cfg)(content))
    return _finish(cfg, opts)


def _drop_retired(content: dict[str, Any]) -> None:
    """Remove keys of earlier versions; Detectron2 would log each, of which the user of a whole file can change none."""
    for key in RETIRED_KEYS:
        *parents, leaf = key.split(".")
        node: Any = content
        for part in parents:
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict):  # else merging it refuses it
            node.pop(leaf, None)


def _default_config() -> CfgNode:
    try:
        from detectron2.config import get_cfg
    except ImportError as error:
        raise detectron2_missing() from error
    cfg = get_cfg()
    add_lung_config(cfg)
    return cfg


def _finish(cfg: CfgNode, opts: Sequence[str]) -> CfgNode:
    if len(opts) % 2:
        found = f"an odd number of words: {opts}"
        raise ConfigError("command line", found=found, expected="KEY VALUE pairs", remedy="pair them")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, value])
        except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
            where, remedy = f"command line, {key} {value}", "correct the key or its value"
            raise ConfigError(where, found=_first_line(error), remedy=remedy) from error
    scale_to_batch(cfg, given=opts[::2])
    _resolve_device(cfg)
    choose_loader_workers(cfg)
    check_config(cfg)
    return cfg


def _check_plain(text: str) -> None:
    """Refuse what takes long to read or expands: the parser's time grows with the square of the depth."""
    import yaml

    if len(text) > _MOST_LETTERS:
        raise ValueError(f"{len(text)} letters, more than {_MOST_LETTERS}")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _MOST_DEPTH:
            raise ValueError("a YAML alias" if depth <= _MOST_DEPTH else f"more than {_MOST_DEPTH} levels")


@contextmanager
def _named_errors(where: str | Path) -> Iterator[None]:
    """Turn what merging a config raises into an error that names its source."""
    import yaml

    try:
        yield
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(
            where,
            found=f"a YAML tag that is not data ({error.problem})",
            expected="plain YAML",
            remedy="remove the tag",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, RecursionError, MemoryError) as error:
        # Python's parser raises MemoryError for deeply nested brackets.
        raise ConfigError(where, found=f"not a config ({_first_line(error)})", remedy="correct the YAML") from error
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(where, found=_first_line(error), remedy="correct the key or its value") from error


def _check_bases(path: Path, seen: tuple[Path, ...] = ()) -> None:
    """Refuse a ``_BASE_`` that would be downloaded: reading a config opens no connection."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return  # reported when it is merged
    bases = content.get("_BASE_", []) if isinstance(content, dict) else []
    for base in [bases] if isinstance(bases, str) else bases:
        if "://" in str(base):
            raise ConfigError(path, found=f"_BASE_ {base}", expected="a local file", remedy="download it first")
        if path not in seen:
            _check_bases(path.parent / str(base), (*seen, path))


def _resolve_device(cfg: CfgNode) -> None:
    import torch

    try:
        kind = torch.device(cfg.MODEL.DEVICE).type
    except RuntimeError as error:
        raise ConfigError(
            "MODEL.DEVICE", found=cfg.MODEL.DEVICE, expected="cuda, cuda:1 or cpu", remedy="correct the key"
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"


def choose_loader_workers(cfg: CfgNode) -> None:
    """Choose ``DATALOADER.NUM_WORKERS`` for each process by the machine where it is below 0, in place.

    A GPU is fed by the cores that are its share, up to 8; on a CPU, which trains a hundred times slower, one process
    loads enough, and leaves the other cores to the network.
    """
    import torch

    if cfg.DATALOADER.NUM_WORKERS < 0:
        on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
        share = count_cores() // max(1, torch.cuda.device_count()) if on_gpu else 1
        cfg.DATALOADER.NUM_WORKERS = min(MOST_LOADERS, max(1, share))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip("'\"").splitlines()), type(error).__name__)
