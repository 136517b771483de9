"""Every config key of ours, and the safe way to read a config file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lung_d2.errors import ConfigError, detectron2_missing

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def add_lung_config(cfg: CfgNode) -> None:
    """Add the keys of lung_d2 to a Detectron2 config, in place, and register our heads.

    Args:
        cfg: What ``detectron2.config.get_cfg()`` returns.
    """
    from detectron2.config import CfgNode as CN

    import lung_d2.modeling  # noqa: F401  the names in the configs must be in Detectron2's registries

    cfg.INPUT.CT = CN()
    # How HU become the 0..255 of the image: "window", or "minmax_clahe", which mimics public 8-bit sets.
    cfg.INPUT.CT.GREY = "window"
    # Centre and width of the window in HU: the usual lung window.
    cfg.INPUT.CT.WINDOW_CENTER = -600.0
    cfg.INPUT.CT.WINDOW_WIDTH = 1500.0
    # "single": the slice in all three channels; "neighbours": slices k-1, k, k+1.
    cfg.INPUT.CT.CHANNELS = "single"
    # Training only: standard deviation, in HU, of one shift of the whole image (scanners and calibration differ).
    # 0 turns it off; 8-bit sources have no HU and are left as they are.
    cfg.INPUT.CT.HU_JITTER = 0.0

    cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS = CN()
    # Weight (no unit) of the class loss in the joint optimisation of class, box and mask.
    cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS.CLS = 1.0
    # Weight (no unit) of the box regression loss.
    cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS.BOX = 1.0
    # Weight (no unit) of the mask loss.
    cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS.MASK = 1.0

    # Batch size, in images, for which BASE_LR is meant: the rate is scaled by IMS_PER_BATCH / REFERENCE_BATCH
    # (Goyal et al. 2017). 0 turns it off; a BASE_LR given on the command line is never scaled.
    cfg.SOLVER.REFERENCE_BATCH = 16

    cfg.SOLVER.CONVERGENCE = CN()
    # Stop before MAX_ITER once the total loss no longer falls.
    cfg.SOLVER.CONVERGENCE.ENABLED = True
    # The loss is smoothed by its mean over this many iterations.
    cfg.SOLVER.CONVERGENCE.WINDOW = 500
    # Iterations without a fall after which the loss has converged.
    cfg.SOLVER.CONVERGENCE.PATIENCE = 3000
    # A fall counts when the smoothed loss drops by more than this share of its best value.
    cfg.SOLVER.CONVERGENCE.TOLERANCE = 0.005

    # The metric that says which checkpoint is best, as the evaluation names it, "task/metric".
    cfg.TEST.BEST_METRIC = "segm/AP50"


def load_config(path: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Read a config file of lung_d2.

    Args:
        path: A YAML file; its ``_BASE_`` files are read as safely as itself.
        opts: ``KEY VALUE`` pairs that override the file.

    Returns:
        The config: learning rate scaled to the batch, device resolved to one that is there.

    Raises:
        ConfigError: The file is missing or broken, holds a Python tag, or names a key that is not there.
        DependencyError: Detectron2 is not installed.
    """
    try:
        from detectron2.config import get_cfg
    except ImportError as error:
        raise detectron2_missing() from error

    cfg = get_cfg()
    add_lung_config(cfg)
    _merge_file(cfg, Path(path))
    _merge_opts(cfg, list(opts))
    _scale_learning_rate(cfg, rate_was_given="SOLVER.BASE_LR" in opts[::2])
    _resolve_device(cfg)
    return cfg


def _merge_file(cfg: CfgNode, path: Path) -> None:
    import yaml

    if not path.is_file():
        raise ConfigError(
            path, found="no such file", expected="a YAML config", remedy="see configs/ for those there are"
        )
    try:
        # Detectron2's default is allow_unsafe=True, with which a !!python tag runs code.
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(
            path, found=f"a YAML tag that is not data ({error.problem})", expected="plain YAML", remedy="remove the tag"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError(path, found=f"no config ({_first_line(error)})", remedy="correct the YAML") from error
    except OSError as error:
        raise ConfigError(
            path, found=_first_line(error), remedy="correct _BASE_, which is relative to the file"
        ) from error
    except (KeyError, ValueError, AssertionError) as error:
        raise ConfigError(path, found=_first_line(error), remedy="correct the key or its value") from error


def _merge_opts(cfg: CfgNode, opts: list[str]) -> None:
    if len(opts) % 2:
        raise ConfigError(
            "command line",
            found=f"a key or value too many among {opts}",
            expected="KEY VALUE pairs",
            remedy="pair them",
        )
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, value])
        except (KeyError, ValueError, AssertionError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"command line, {key} {value}", found=_first_line(error), remedy="correct the key or its value"
            ) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip("'\"").splitlines()), type(error).__name__)


def _scale_learning_rate(cfg: CfgNode, *, rate_was_given: bool) -> None:
    reference, batch = cfg.SOLVER.REFERENCE_BATCH, cfg.SOLVER.IMS_PER_BATCH
    if reference > 0 and not rate_was_given:
        cfg.SOLVER.BASE_LR = cfg.SOLVER.BASE_LR * batch / reference
        logger.info("learning rate %g for %d images a batch", cfg.SOLVER.BASE_LR, batch)
    cfg.SOLVER.REFERENCE_BATCH = 0  # the dumped config holds the rate that was used


def _resolve_device(cfg: CfgNode) -> None:
    import torch

    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    logger.info("device: %s", cfg.MODEL.DEVICE)
