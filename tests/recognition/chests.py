"""A chest whose lungs and lesions are known, as DICOM, and a predictor that finds what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.modeling import build_model

from ct.dicom_files import make_slice, write
from lesions.solids import detections_on
from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY, Categories, Category
from lung_d2.ct import CTVolume
from lung_d2.ct.grey import GreyLevels
from lung_d2.engine.lung_view import LungUse, LungView
from lung_d2.lesions import SliceDetections
from lung_d2.lungs import LungField
from tiny import tiny_config

SLICES, ROWS, COLUMNS = 12, 72, 96
SPACING_MM = (6.0, 3.5, 3.5)
FRAME_UID = "1.2.826.0.1.3680043.8.498.3"
Mask = npt.NDArray[np.bool_]


def ellipse(row: float, column: float, height: float, width: float) -> Mask:
    """Return a filled ellipse in a slice, by its middle and half axes in pixels."""
    y, x = np.ogrid[:ROWS, :COLUMNS]
    inside: Mask = ((y - row) / height) ** 2 + ((x - column) / width) ** 2 <= 1
    return inside


RIGHT, LEFT = ellipse(36, 28, 22, 15), ellipse(36, 68, 22, 15)
HAZE, BRONCHUS, FAR = ellipse(40, 28, 6, 6), ellipse(30, 68, 3, 3), ellipse(3, 3, 3, 3)
"""A ground glass opacity in the right lung, a bronchus in the left, and a place in the air outside."""


def chest_hu() -> npt.NDArray[np.int16]:
    """Return the HU of a chest, ``[Z, Y, X]``: lungs on slices 2 to 9, haze on 4 to 7, the bronchus on 5 and 6."""
    hu = np.full((SLICES, ROWS, COLUMNS), -1000, np.int16)
    hu[:, ellipse(36, 48, 32, 44)] = 40
    hu[2:10, RIGHT | LEFT] = -850
    hu[4:8, HAZE] = -500
    hu[5:7, BRONCHUS] = -300
    return hu + np.random.default_rng(0).integers(-20, 21, hu.shape).astype(np.int16)


def write_chest(folder: Path, **tags: Any) -> list[Path]:
    """Write the chest as a DICOM series; a tag given as None is left out."""
    uid = tags.get("SeriesInstanceUID", "1.2.826.0.1.3680043.8.498.1")
    given = {"PixelSpacing": [3.5, 3.5], "SliceThickness": 6.0, "FrameOfReferenceUID": FRAME_UID, **tags}
    return [
        write(
            make_slice((plane + 1024).astype(np.int16), z=6.0 * index, **{"SOPInstanceUID": f"{uid}.{index}", **given}),
            folder / f"{index:03d}.dcm",
        )
        for index, plane in enumerate(chest_hu())
    ]


Place = tuple[range, Mask, float, Category]
LESIONS: tuple[Place, ...] = (
    (range(4, 8), HAZE, 0.9, GROUND_GLASS_OPACITY),
    (range(5, 7), BRONCHUS, 0.8, BRONCHIECTASIS),
)


@dataclass
class StandIn:
    """A predictor that finds what it is told; ``calls`` keeps what it was asked."""

    places: Sequence[Place] = LESIONS
    grey: GreyLevels = field(default_factory=GreyLevels)
    channels: str = "single"
    origin: Any = None
    categories: Categories = CATEGORIES
    device_name: str = "cpu"
    calls: list[tuple[LungField | None, LungUse | None]] = field(default_factory=list)

    def __call__(
        self, volume: CTVolume, lungs: LungField | None = None, use: LungUse | None = None, *, progress: bool = True
    ) -> list[SliceDetections]:
        self.calls.append((lungs, use))
        return [
            detections_on(
                index, [(mask, score, category) for slices, mask, score, category in self.places if index in slices]
            )
            for index in range(len(volume.hu))
        ]

    def view_of(self, volume: CTVolume, lungs: LungField | None = None, use: LungUse | None = None) -> LungView:
        return LungView.of(volume, lungs, use)


def write_model(folder: Path, *opts: Any) -> tuple[Path, Path]:
    """Write a config as training dumps it and random weights, whose scores are about 1/3; return both."""
    cfg = tiny_config(folder, folder, *opts)
    torch.manual_seed(3)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder / "config.yaml", folder / "model.pth"
