"""A tiny data set whose lesions are known by hand, and a model small enough to train on it within a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY, Category
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.dataset import write_dataset
from lung_d2.data.splits import split_by_patient

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from lung_d2.ct import CTVolume

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
GROUND_HU, GGO_HU, WALL_HU, LUMEN_HU = -850, -450, 50, -980
SPACING_MM = (0.7, 0.8)
# What the tests that train have in common: small, deterministic, and about 0.05 s an iteration on one core.
TINY_OPTS: tuple[Any, ...] = (
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.NORM", "GN", "MODEL.FPN.NORM", "GN"),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 32, "MODEL.FPN.OUT_CHANNELS", 32),  # group norm has 32 groups
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[4], [8], [16], [32], [64]]),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 50, "MODEL.RPN.PRE_NMS_TOPK_TEST", 50),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 20, "MODEL.RPN.POST_NMS_TOPK_TEST", 20),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 32, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1),
    *("INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MAX_SIZE_TRAIN", 64, "INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 64),
    *("DATALOADER.NUM_WORKERS", 0, "SOLVER.AMP.ENABLED", False, "SOLVER.IMS_PER_BATCH", 2, "SEED", 7),
)

Mask = npt.NDArray[np.bool_]


def square(size: int, top: int, left: int, side: int) -> Mask:
    """Return a filled square in a picture of ``size`` x ``size`` pixels."""
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def ring(size: int, top: int, left: int, side: int, wall: int = 2) -> Mask:
    """Return a square ring, whose hole no polygon could hold."""
    return square(size, top, left, side) & ~square(size, top + wall, left + wall, side - 2 * wall)


def tiny_slices(patient: int, slices: int, size: int, seed: int) -> Iterator[AnnotatedSlice]:
    """Yield a patient's slices: the first without a lesion, the others with a GGO square and a bronchus ring."""
    rng = np.random.default_rng([seed, patient])
    for index in range(slices):
        plane = np.full((size, size), GROUND_HU, np.int16) + rng.integers(-20, 21, (size, size), dtype=np.int16)
        instances: list[tuple[Category, Mask]] = []
        if index > 0:
            top, left, low, right = (int(value) for value in rng.integers(2, size // 2 - 20, 4))
            hazy = square(size, top, left, 16)
            wall = ring(size, size // 2 + low, size // 2 + right, 14, wall=3)
            plane[hazy] += GGO_HU - GROUND_HU
            plane[square(size, size // 2 + low, size // 2 + right, 14)] = LUMEN_HU
            plane[wall] = WALL_HU
            instances = [(GROUND_GLASS_OPACITY, hazy), (BRONCHIECTASIS, wall)]
        yield AnnotatedSlice(
            plane=plane,
            instances=tuple(instances),
            slice_index=index,
            pixel_spacing_mm=SPACING_MM,
            slice_position_mm=2.0 * index,
        )


def tiny_cases(patients: int = 4, slices: int = 4, size: int = 64, seed: int = 0) -> list[Case]:
    """Return one contiguous case for each patient."""
    return [
        Case(
            name=f"case {patient}",
            patient=f"patient{patient}",
            series=f"series{patient}",
            load=partial(tiny_slices, patient, slices, size, seed),
            contiguous=True,
        )
        for patient in range(patients)
    ]


def write_tiny_dataset(
    root: Path, name: str = "tiny", patients: int = 4, slices: int = 4, size: int = 64, seed: int = 0
) -> Path:
    """Write a data set in HU with the splits ``NAME_train`` and ``NAME_val`` (a quarter of the patients)."""
    cases = tiny_cases(patients, slices, size, seed)
    split_of = split_by_patient([case.patient for case in cases], {"train": 0.75, "val": 0.25}, seed)
    return write_dataset(root, name, cases, split_of, allow_duplicates=True)  # small pictures of squares look alike


def tiny_config(root: Path, output: Path, *opts: Any, name: str = "tiny") -> CfgNode:
    """Register the data sets under ``root`` and return a config that trains a tiny model on ``NAME``.

    Args:
        root: What :func:`write_tiny_dataset` was given.
        output: ``OUTPUT_DIR``.
        opts: Further ``KEY, VALUE`` pairs; they win.
        name: Name of the data set.
    """
    from lung_d2 import load_config, register_lung_datasets

    register_lung_datasets(root)
    names = ["DATASETS.TRAIN", (f"{name}_train",), "DATASETS.TEST", (f"{name}_val",), "OUTPUT_DIR", os.fspath(output)]
    return load_config(CONFIGS / "Base-LungCT-RCNN-FPN.yaml", [*TINY_OPTS, *names, *opts])


def volume_of(hu: npt.NDArray[np.int16]) -> CTVolume:
    """Return an axial volume of these HU ``[Z, Y, X]``: 2 mm slices, 0.7 x 0.8 mm pixels."""
    from lung_d2.ct import CTVolume

    count = len(hu)
    return CTVolume(
        hu=hu,
        spacing_mm=(2.0, *SPACING_MM),
        slice_positions_mm=2.0 * np.arange(count),
        affine_lps=np.diag([SPACING_MM[1], SPACING_MM[0], 2.0, 1.0]),
        series_instance_uid="1.2.3",
        study_instance_uid="1.2",
        sop_instance_uids=tuple(f"1.2.3.{index}" for index in range(count)),
        frame_numbers=(None,) * count,
        patient_hash="aa",
        series_hash="bb",
    )
