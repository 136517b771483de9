"""Lesions of other training slices copied into the lung of a slice.

After Ghiasi et al., Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation (CVPR 2021), with
the lung as the place: a lesion outside of it would teach what cannot occur.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import BoxMode

from lung_d2.data.augment.cutouts import (
    Cutout,
    DonorSlice,
    Mask,
    Plane,
    Record,
    Window,
    blend_px,
    estimate_lung,
    lung_level,
    lung_noise,
    sort_masks,
)
from lung_d2.masks import encode_mask, mask_box


class DonorPool:
    """Draws a slice with lesions for another of the same data set, size and kind of values.

    The records stay where they are; the pool holds their indices.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        """Sort the records.

        Args:
            records: Dataset dicts of the training, as :func:`lung_d2.data.register.load_lung_json` makes them; also a
                ``DatasetFromList``, which unpacks a copy on each access.
        """
        self._records = records
        self._indices: dict[Hashable, list[int]] = defaultdict(list)
        for index in range(len(records)):
            record = records[index]
            if any(not annotation.get("iscrowd", 0) for annotation in record["annotations"]):
                self._indices[_kind(record)].append(index)

    def draw(self, record: Mapping[str, Any]) -> Record | None:
        """Draw a donor from numpy's global generator; None where there is none but the slice itself."""
        indices = self._indices.get(_kind(record), [])
        if not indices:
            return None
        donor = self._records[indices[np.random.randint(len(indices))]]
        return None if donor["file_name"] == record["file_name"] else donor


def _kind(record: Mapping[str, Any]) -> Hashable:
    folder = Path(record["file_name"]).parent.parent  # images/ of the data set, over the folders of the series
    return folder, record["hu"], record["height"], record["width"], "neighbours" in record


INSIDE_SHARE = 0.9
"""Least share of a lesion that has to lie in the lung; what lies outside is cut off."""
TRIES = 16
"""Places that are tried for a lesion before it is left out."""
DONORS = 3
"""Slices that are looked at for lesions before none is copied."""
NOISE_RATIO = 1.5
"""Most by which the noise of two slices may differ: a speckled patch in a smooth lung would give the copy away."""


@dataclass(frozen=True)
class CopyPaste:
    """How lesions are copied.

    Attributes:
        probability: Share of the slices that are given lesions where a donor of like noise and room are found, 0 to 1.
        max_lesions: Most lesions for one slice, 1 or more; their number is drawn evenly.
        max_overlap: Largest share of a copied lesion that may lie over others, 0 to 1.
    """

    probability: float
    max_lesions: int = 3
    max_overlap: float = 0.1

    def __call__(
        self,
        record: Record,
        planes: list[Plane],
        draw_donor: Callable[[Mapping[str, object]], Record | None],
        read_planes: Callable[[Record], list[Plane]],
    ) -> list[Plane]:
        """Copy lesions into a slice at random, drawn from numpy's global generator.

        Args:
            record: Dataset dict of the slice; its ``annotations`` are replaced by those of what is seen then.
            planes: ``(H, W)`` each, the slice alone, or between its neighbours.
            draw_donor: Gives the dataset dict of another slice of the same size and kind, or None.
            read_planes: Reads its planes, as many as ``planes``.

        Returns:
            The planes, new where something was copied.
        """
        if np.random.random() >= self.probability:
            return planes
        target = _Target.of(record, planes)
        drawn = (draw_donor(record) for _ in range(DONORS if target.lung.any() else 0))
        donors = (DonorSlice.of(one, read_planes(one)) for one in drawn if one is not None)
        donor = next((one for one in donors if one.cutouts and target.is_as_noisy_as(one)), None)
        if donor is None:
            return planes
        most = min(self.max_lesions, len(donor.cutouts))
        for index in np.random.permutation(len(donor.cutouts))[: np.random.randint(1, most + 1)]:
            cutout = donor.cutouts[index]
            cutout = cutout.mirrored() if np.random.random() < 0.5 else cutout
            if place := self._find_place(cutout, target):
                target.receive(cutout, donor.planes, donor.levels[index], place)
        record["annotations"] = target.list_annotations()
        return target.planes

    def _find_place(self, cutout: Cutout, target: _Target) -> Window | None:
        """Return rows and columns where there is room for a lesion; None where there is none among those tried."""
        rows, columns = np.nonzero(target.lung)
        height, width = cutout.footprint.shape
        area = np.count_nonzero(cutout.footprint)
        for choice in np.random.randint(0, len(rows), TRIES):
            top, left = int(rows[choice]) - height // 2, int(columns[choice]) - width // 2
            place = slice(top, top + height), slice(left, left + width)
            if min(top, left) < 0 or target.lung[place].shape != cutout.footprint.shape:
                continue
            if np.count_nonzero(cutout.footprint & target.lung[place]) < INSIDE_SHARE * area:
                continue
            if np.count_nonzero(cutout.footprint & target.lesions[place]) <= self.max_overlap * area:
                return place
        return None


@dataclass(eq=False)
class _Target:
    """The slice that receives; :meth:`receive` changes it.

    Attributes:
        planes: ``(H, W)`` each.
        decided: Annotations with their masks.
        crowds: Undecided regions, which stay as they are; ``lung`` leaves them out, so that nothing comes upon them.
        lung: bool ``(H, W)``.
        lesions: bool ``(H, W)``, all lesions.
        noise: Standard deviation in the healthy lung.
    """

    planes: list[Plane]
    decided: list[tuple[Record, Mask]]
    crowds: list[Record]
    lung: Mask
    lesions: Mask
    noise: float | None

    @classmethod
    def of(cls, record: Record, planes: list[Plane]) -> _Target:
        decided, lesions, undecided = sort_masks(record, planes[0].shape)
        crowds = [annotation for annotation in record["annotations"] if annotation.get("iscrowd", 0)]
        middle = planes[len(planes) // 2]
        lung = estimate_lung(middle, lesions) & ~undecided
        return cls(list(planes), decided, crowds, lung, lesions, lung_noise(middle, lung & ~lesions))

    def is_as_noisy_as(self, donor: DonorSlice) -> bool:
        """Say whether a lesion of this slice would not be told by its noise; so where that is unknown."""
        if not self.noise or not donor.noise:
            return True
        return max(self.noise, donor.noise) <= NOISE_RATIO * min(self.noise, donor.noise)

    def receive(self, cutout: Cutout, given: list[Plane], levels: list[float], place: Window) -> None:
        """Blend a lesion in, and take what it hides from the masks of the others."""
        lung, healthy = self.lung[place], self.lung & ~self.lesions
        share = cutout.soften(blend_px(self.planes[0])) * lung
        for index, (own, donor, level) in enumerate(zip(self.planes, given, levels, strict=True)):
            part = donor[cutout.window].astype(np.float32)
            if own.dtype == np.uint8:  # no common scale, as HU have: lung is brought to lung
                part += np.float32(lung_level(own, healthy, place) - level)
            new, ends = own.copy(), np.iinfo(own.dtype)
            new[place] = np.clip(np.rint(own[place] + share * (part - own[place])), ends.min, ends.max)
            self.planes[index] = new
        hidden, pasted = np.zeros_like(self.lesions), np.zeros_like(self.lesions)
        hidden[place], pasted[place] = cutout.footprint & lung, cutout.mask & lung
        self.decided = [(annotation, mask & ~hidden) for annotation, mask in self.decided]
        self.decided.append((cutout.annotation, pasted))
        self.lesions |= hidden

    def list_annotations(self) -> list[Record]:
        """Return the annotations of what is seen; what is hidden as a whole has none."""
        seen = [_with_mask(annotation, mask) for annotation, mask in self.decided if mask.any()]
        return [*seen, *self.crowds]


def _with_mask(annotation: Record, mask: Mask) -> Record:
    box = [float(side) for side in mask_box(mask)]
    return annotation | {"segmentation": encode_mask(mask), "bbox": box, "bbox_mode": BoxMode.XYXY_ABS}
