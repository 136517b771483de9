"""Truths and results made by hand: a few squares on slices of 64 x 64 pixels."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lung_d2.categories import CATEGORIES
from lung_d2.evaluation.figures import ones
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Region, SliceRecord, Source, Truth
from lung_d2.masks import build_annotation, encode_mask
from tiny import square as square_in

SIZE = 64
GGO, BRONCHIECTASIS = 0, 1
Mask = npt.NDArray[np.bool_]
Found = tuple[int, int, float, Mask]
"""Number of the slice, number of the category, score, mask."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice of a made-up truth; ``lesions`` and ``undecided`` hold the number of the category and a mask."""

    lesions: Sequence[tuple[int, Mask]] = ()
    undecided: Sequence[tuple[int, Mask]] = ()
    patient: str = "p"
    series: str = ""
    slice_index: int | None = None
    spacing_mm: tuple[float, float] | None = (1.0, 1.0)
    position_mm: float | None = None


def square(top: int, left: int, side: int) -> Mask:
    return square_in(SIZE, top, left, side)


def block(top: int, left: int, height: int, width: int) -> Mask:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def make_truth(slices: Sequence[Slice], name: str = "made_val") -> Truth:
    """Make a truth; a slice without series is of the one named after its patient, at its place in the list."""
    records = tuple(
        SliceRecord(
            dataset=name,
            image_id=number + 1,
            file_name=f"{number}.png",
            path=Path("nowhere", f"{number}.png"),
            shape=(SIZE, SIZE),
            patient=one.patient,
            series=one.series or one.patient,
            slice_index=number if one.slice_index is None else one.slice_index,
            pixel_spacing_mm=one.spacing_mm,
            slice_position_mm=one.position_mm,
        )
        for number, one in enumerate(slices)
    )
    lesions: dict[tuple[int, int], list[Region]] = {}
    undecided: dict[tuple[int, int], list[Region]] = {}
    for number, one in enumerate(slices):
        for kind, made in ((one.lesions, lesions), (one.undecided, undecided)):
            for category, mask in kind:
                made.setdefault((number, category), []).append(make_region(mask))
    return Truth((Source(name, Path("nowhere.json"), Path("nowhere")),), records, lesions, undecided)


def make_region(mask: Mask) -> Region:
    annotation = build_annotation(mask, CATEGORIES[0])
    x, y, width, height = annotation["bbox"]
    return Region(annotation["segmentation"], (x, y, width, height), float(annotation["area"]))


def make_detections(found: Iterable[Found]) -> Detections:
    listed = list(found)
    boxes = [make_region(mask).box if mask.any() else (0.0, 0.0, 0.0, 0.0) for _, _, _, mask in listed]
    return Detections(
        slices=np.array([number for number, _, _, _ in listed], np.int64),
        categories=np.array([category for _, category, _, _ in listed], np.int64),
        scores=np.array([score for _, _, score, _ in listed], np.float64),
        boxes=np.array(boxes, np.float64).reshape(-1, 4),
        masks=tuple(encode_mask(mask) for _, _, _, mask in listed),
    )


def make_case(slices: Sequence[Slice], found: Iterable[Found]) -> tuple[Truth, Detections]:
    return make_truth(slices), make_detections(found)


def weigh(truth: Truth, weights: Sequence[float] | None = None) -> npt.NDArray[np.float64]:
    """Return the weight of each patient, 1 unless said otherwise."""
    return ones(truth) if weights is None else np.array(weights, float)


def perfect(slices: Sequence[Slice], score: float = 0.9) -> list[Found]:
    """Return the lesions as they are."""
    return [(number, category, score, mask) for number, one in enumerate(slices) for category, mask in one.lesions]


def random_case(seed: int, patients: int = 6, slices: int = 4) -> tuple[list[Slice], list[Found]]:
    """Make lesions, undecided regions, and detections that are near them or not, without equal scores."""
    rng = np.random.default_rng(seed)

    def anywhere(least: int = 4, most: int = 24) -> Mask:
        top, left = (int(value) for value in rng.integers(0, SIZE - most, 2))
        return block(top, left, int(rng.integers(least, most)), int(rng.integers(least, most)))

    made, found = [], []
    for number in range(patients * slices):
        lesions = [(int(rng.integers(2)), anywhere()) for _ in range(rng.integers(0, 4))]
        undecided = [(int(rng.integers(2)), anywhere(8, 30)) for _ in range(rng.integers(0, 2))]
        made.append(Slice(lesions, undecided, patient=f"p{number // slices}", slice_index=number % slices))
        for category, mask in lesions:
            if rng.random() < 0.8:
                shift = tuple(int(value) for value in rng.integers(-4, 5, 2))
                found.append((number, category, float(rng.random()), np.roll(mask, shift, (0, 1))))
        found += [(number, int(rng.integers(2)), float(rng.random()), anywhere()) for _ in range(rng.integers(0, 5))]
    return made, found


def to_results(detections: Detections) -> list[dict[str, Any]]:
    """Return the entries of a results file whose image ids are those of :func:`make_truth`."""
    return [
        {
            "image_id": int(detections.slices[index]) + 1,
            "category_id": CATEGORIES[detections.categories[index]].coco_id,
            "bbox": detections.boxes[index].tolist(),
            "score": float(detections.scores[index]),
            "segmentation": detections.masks[index],
        }
        for index in range(len(detections))
    ]


def to_dataset(slices: Sequence[Slice]) -> dict[str, Any]:
    """Return the COCO JSON of the same truth as a prepared data set holds it."""
    truth = make_truth(slices)
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(slices):
        for crowd, kind in enumerate((one.lesions, one.undecided)):
            for category, mask in kind:
                annotation = build_annotation(mask, CATEGORIES[category], is_crowd=bool(crowd))
                annotations.append(annotation | {"id": len(annotations) + 1, "image_id": number + 1})
    return {
        "info": {},
        "licenses": [],
        "categories": [{"id": one.coco_id, "name": one.name, "supercategory": "lung lesion"} for one in CATEGORIES],
        "images": [
            {
                "id": one.image_id,
                "file_name": one.file_name,
                "height": SIZE,
                "width": SIZE,
                "hu": False,
                "patient": one.patient,
                "series": one.series,
                "slice_index": one.slice_index,
                "pixel_spacing_mm": None if one.pixel_spacing_mm is None else list(one.pixel_spacing_mm),
                "slice_position_mm": one.slice_position_mm,
            }
            for one in truth.slices
        ],
        "annotations": annotations,
    }


def write_source(folder: Path, content: Any, name: str = "one_val") -> Source:
    """Write the COCO JSON of a data set."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return Source(name, path, folder / "images")
