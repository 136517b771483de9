"""Every config key of ours, and what is read from several of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lung_d2.config.checks import as_plain, value_of

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

_RATES = ("SOLVER.BASE_LR", "SOLVER.BASE_LR_END")
_ITERATIONS = (
    *("SOLVER.MAX_ITER", "SOLVER.STEPS", "SOLVER.WARMUP_ITERS", "SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD"),
    *("SOLVER.CONVERGENCE.WINDOW", "SOLVER.CONVERGENCE.PATIENCE"),
)
"""What :func:`scale_to_batch` scales."""
_REPORTED = ("SOLVER.BASE_LR", "SOLVER.MAX_ITER", "SOLVER.STEPS")
"""What its line in the log names, where it changed."""


# Keys of earlier versions: a config that still has them loads, and the log says that they are ignored.
RETIRED_KEYS = ("MODEL.CT_BACKBONE", "MODEL.CT_BACKBONE.TEACHER", "MODEL.CT_BACKBONE.TEACHER_DEPTH")


def add_lung_config(cfg: CfgNode) -> None:
    """Add the keys of lung_d2 to a Detectron2 config, in place, and register our heads.

    Args:
        cfg: What ``detectron2.config.get_cfg()`` returns.
    """
    from detectron2.config import CfgNode as CN

    import lung_d2.modeling  # noqa: F401  the names in the configs must be in Detectron2's registries

    cfg.INPUT.CT = CN()
    # How HU become the 0..255 of the image: "window"; "minmax_clahe", which mimics public 8-bit sets; or "any", a
    # window that lets 8-bit slices through as they are.
    cfg.INPUT.CT.GREY = "window"
    # Centre and width of the window in HU: the usual lung window.
    cfg.INPUT.CT.WINDOW_CENTER = -600.0
    cfg.INPUT.CT.WINDOW_WIDTH = 1500.0
    # "single": the slice in all three channels; "neighbours": slices k-1, k, k+1.
    cfg.INPUT.CT.CHANNELS = "single"
    # Training only: standard deviation, in HU, of one shift of the whole image (scanners and calibration differ).
    # 0 turns it off. It shows in a window alone: minmax_clahe follows the shift, and 8-bit sources have no HU.
    cfg.INPUT.CT.HU_JITTER = 0.0
    _add_augment_keys(cfg)

    # Feature attention of the pyramid, where BACKBONE.NAME is build_resnet_attention_fpn_backbone.
    cfg.MODEL.FPN.ATTENTION = CN()
    # Weigh the channels of each level.
    cfg.MODEL.FPN.ATTENTION.CHANNEL = True
    # Weigh the places of each level.
    cfg.MODEL.FPN.ATTENTION.SPATIAL = True
    # How many times fewer channels than the pyramid the bottleneck of the channel attention has, 1 or more; 16 as in
    # CBAM (Woo et al. 2018).
    cfg.MODEL.FPN.ATTENTION.REDUCTION = 16

    cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS = CN()
    # Weight (no unit) of the class loss in the joint optimisation of class, box and mask.
    cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS.CLS = 1.0
    # Weight (no unit) of the box regression loss.
    cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS.BOX = 1.0
    # Weight (no unit) of the mask loss.
    cfg.MODEL.ROI_HEADS.LOSS_WEIGHTS.MASK = 1.0

    _add_mask_fusion_keys(cfg)

    # Score a detection by sqrt(class x objectness) in place of the class; CenterNet2's key. Scores mean
    # something else by it, so that thresholds have to be chosen again.
    cfg.MODEL.ROI_BOX_HEAD.MULT_PROPOSAL_SCORE = False

    # How often the images of a data set come in an epoch, as pairs (name in DATASETS.TRAIN, factor above 0); those not
    # named come once. Detectron2's own key, which its samplers Weighted*TrainingSampler read and its defaults lack.
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = []

    _add_solver_config(cfg)

    for key in RETIRED_KEYS:
        cfg.register_deprecated_key(key)

    # The metric that says which checkpoint is best, as metrics.json names it: "task/metric", and where DATASETS.TEST
    # names several data sets "NAME/task/metric".
    cfg.TEST.BEST_METRIC = "segm/AP50"


def _add_mask_fusion_keys(cfg: CfgNode) -> None:
    from detectron2.config import CfgNode as CN

    # What is done with the masks of detections; training does not read it.
    cfg.MODEL.ROI_HEADS.MASK_FUSION = CN()
    # How much wider and higher than its box the region is that the mask head sees, 1 or more.
    cfg.MODEL.ROI_HEADS.MASK_FUSION.BOX_SCALE = 1.0
    # Detections of one category whose masks overlap by more than this IoU become one: the mean of their soft masks,
    # weighted by score. 1 turns it off.
    cfg.MODEL.ROI_HEADS.MASK_FUSION.IOU = 1.0
    # From which probability on a pixel is lesion, between 0 and 1.
    cfg.MODEL.ROI_HEADS.MASK_FUSION.THRESHOLD = 0.5


def _add_solver_config(cfg: CfgNode) -> None:
    from detectron2.config import CfgNode as CN

    # Images a batch for which rate and schedule are meant; 0 turns scaling off. With another IMS_PER_BATCH the rate
    # changes by IMS_PER_BATCH / REFERENCE_BATCH and the iterations by its inverse, so that a run sees as many images
    # (Goyal et al. 2017). What the command line gives is never scaled; see scale_to_batch.
    cfg.SOLVER.REFERENCE_BATCH = 16

    cfg.SOLVER.EMA = CN()
    # Keep an exponential moving average of the weights: it is what is evaluated and what checkpoints give; the last
    # weights themselves go to model_final_raw.pth.
    cfg.SOLVER.EMA.ENABLED = False
    # Share of the average that each iteration keeps, 0 to below 1: it spans about 1 / (1 - DECAY) iterations, fewer at
    # first.
    cfg.SOLVER.EMA.DECAY = 0.999

    cfg.SOLVER.CONVERGENCE = CN()
    # Stop before MAX_ITER once the total loss no longer falls.
    cfg.SOLVER.CONVERGENCE.ENABLED = True
    # The loss is smoothed by its mean over this many iterations, 1 or more.
    cfg.SOLVER.CONVERGENCE.WINDOW = 100
    # Iterations without a fall after which the loss has converged.
    cfg.SOLVER.CONVERGENCE.PATIENCE = 400
    # A fall counts when the smoothed loss drops by more than this share of its best value.
    cfg.SOLVER.CONVERGENCE.TOLERANCE = 0.005


def _add_augment_keys(cfg: CfgNode) -> None:
    """Add what else changes training slices at random; 0 turns each off. Flips and sizes are Detectron2's keys."""
    from detectron2.config import CfgNode as CN

    cfg.INPUT.CT.AUGMENT = CN()
    # Largest turn about the middle of the picture, in degrees: patients do not lie straight.
    cfg.INPUT.CT.AUGMENT.ROTATION = 0.0
    # Largest growth or shrinking, as a share: patients and fields of view differ.
    cfg.INPUT.CT.AUGMENT.SCALE = 0.0
    # Largest shift in each direction, as a share of the picture's width.
    cfg.INPUT.CT.AUGMENT.TRANSLATION = 0.0
    # Largest displacement of the control points of an elastic deformation, as a share of the width, at most 0.08
    # (beyond it the picture could fold); they lie a sixth of the width apart.
    cfg.INPUT.CT.AUGMENT.ELASTIC = 0.0
    # Largest standard deviation of added scanner noise, in HU: dose and kernel differ. Slices without HU have none.
    cfg.INPUT.CT.AUGMENT.HU_NOISE = 0.0
    # The counterparts for 8-bit slices without HU: largest change of contrast about the mean, as a share,
    cfg.INPUT.CT.AUGMENT.GREY_CONTRAST = 0.0
    # largest shift, in grey levels of 255,
    cfg.INPUT.CT.AUGMENT.GREY_BRIGHTNESS = 0.0
    # and largest standard deviation of added scanner noise, in grey levels of 255.
    cfg.INPUT.CT.AUGMENT.GREY_NOISE = 0.0

    # Share of the slices, 0 to 1, that come in grey levels drawn at random: HU in any window or as an 8-bit source
    # makes them, and all with another gamma, contrast and sharpness; so that one model takes any.
    cfg.INPUT.CT.AUGMENT.ANY_GREY = 0.0

    # Lesions drawn into the lung of a slice, new ones each time.
    cfg.INPUT.CT.AUGMENT.DRAW = CN()
    # Share of the slices, 0 to 1, with drawn dilated bronchi,
    cfg.INPUT.CT.AUGMENT.DRAW.BRONCHI = 0.0
    # with drawn opacities (a third of it where some are annotated),
    cfg.INPUT.CT.AUGMENT.DRAW.OPACITIES = 0.0
    # and with drawn structures that look like lesions and are not marked.
    cfg.INPUT.CT.AUGMENT.DRAW.CONFOUNDERS = 0.0
    # Most clusters of bronchi on a slice, 1 or more; their number is drawn evenly.
    cfg.INPUT.CT.AUGMENT.DRAW.MAX_CLUSTERS = 8
    # Most opacities on a slice, 1 or more; likewise.
    cfg.INPUT.CT.AUGMENT.DRAW.MAX_OPACITIES = 4

    # Share of the crops (INPUT.CROP) of slices with lesions, 0 to 1, that hold one of these; others lie anywhere.
    cfg.INPUT.CT.AUGMENT.LESION_CROP = 0.0

    cfg.INPUT.CT.AUGMENT.COPY_PASTE = CN()
    # Share of the slices, 0 to 1, into whose lung lesions of another training slice are copied (Ghiasi et al. 2021);
    # about a quarter of these stay as they are, because no donor has similar noise or no room is left.
    cfg.INPUT.CT.AUGMENT.COPY_PASTE.PROBABILITY = 0.0
    # Most lesions copied into a slice, 1 or more; their number is drawn evenly.
    cfg.INPUT.CT.AUGMENT.COPY_PASTE.MAX_LESIONS = 3
    # Largest share of a copied lesion, 0 to 1, that may lie over other lesions, whose masks lose what it hides.
    cfg.INPUT.CT.AUGMENT.COPY_PASTE.MAX_OVERLAP = 0.1


def scale_to_batch(cfg: CfgNode, given: Sequence[str] = ()) -> None:
    """Scale learning rate and schedule from ``SOLVER.REFERENCE_BATCH`` to ``SOLVER.IMS_PER_BATCH``, in place.

    As Detectron2's ``auto_scale_workers`` does for the number of processes. ``REFERENCE_BATCH`` is 0 afterwards, so
    that the config holds what is used and scaling it again changes nothing. :func:`load_config` and the trainer both
    call this: a config made by ``add_lung_config`` and ``merge_from_file`` trains like one that was loaded.

    Args:
        cfg: The config, not frozen.
        given: Keys of the command line, which are not scaled; with ``SOLVER.MAX_ITER`` among them none of the schedule
            is.
    """
    reference, batch = cfg.SOLVER.REFERENCE_BATCH, cfg.SOLVER.IMS_PER_BATCH
    cfg.SOLVER.REFERENCE_BATCH = 0
    if reference <= 0 or batch <= 0 or reference == batch:
        return
    keys = (*_RATES, *(() if "SOLVER.MAX_ITER" in given else _ITERATIONS))
    changed = []
    for key in (key for key in keys if key not in given):
        parent, leaf = value_of(cfg, key.rpartition(".")[0]), key.rpartition(".")[2]
        before = parent[leaf]
        if key in _RATES:
            parent[leaf] = parent[leaf] * batch / reference
        elif isinstance(parent[leaf], tuple | list):
            parent[leaf] = tuple(_scaled(count, reference / batch) for count in parent[leaf])
        else:
            parent[leaf] = _scaled(parent[leaf], reference / batch)
        if key in _REPORTED and (after := parent[leaf]) != before:
            changed.append(f"{key} {after:g}" if isinstance(after, float) else f"{key} {after}")
    if changed:
        logger.info("scaled from %d to %d images a batch: %s", reference, batch, ", ".join(changed))


def _scaled(iterations: int, factor: float) -> int:
    return max(round(iterations * factor), 1) if iterations > 0 else iterations


def ignores_undecided(cfg: CfgNode) -> bool:
    """Return whether the model of a config handles undecided regions (``gt_crowd``); others take them for lesions.

    Those that do are Detectron2's ``GeneralizedRCNN`` with our ``LungRPN`` and ``LungROIHeads``, or what is derived
    from these.
    """
    from detectron2.modeling import (
        META_ARCH_REGISTRY,
        PROPOSAL_GENERATOR_REGISTRY,
        ROI_HEADS_REGISTRY,
        GeneralizedRCNN,
    )

    from lung_d2.modeling import LungROIHeads, LungRPN

    parts = [
        (META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, GeneralizedRCNN),
        (PROPOSAL_GENERATOR_REGISTRY, cfg.MODEL.PROPOSAL_GENERATOR.NAME, LungRPN),
        (ROI_HEADS_REGISTRY, cfg.MODEL.ROI_HEADS.NAME, LungROIHeads),
    ]
    found = [(registry.get(name) if name in registry else None, ours) for registry, name, ours in parts]
    # A registry holds functions that build as well as classes.
    return all(isinstance(part, type) and issubclass(part, ours) for part, ours in found)


def input_settings(cfg: CfgNode) -> dict[str, Any]:
    """Return what a model was trained to see: the keys that have to be the same wherever its weights are used.

    Returns:
        Values by key, of plain types, as they are kept in a checkpoint.
    """
    keys = ["INPUT.CT.GREY", "INPUT.CT.CHANNELS", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.ANCHOR_GENERATOR.SIZES"]
    if cfg.INPUT.CT.GREY != "minmax_clahe":
        keys += ["INPUT.CT.WINDOW_CENTER", "INPUT.CT.WINDOW_WIDTH"]
    return {key: as_plain(value_of(cfg, key)) for key in keys}
