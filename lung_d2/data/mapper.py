"""From a dataset dict to what the model takes, in training and in evaluation."""

from __future__ import annotations

import copy
import functools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances

from lung_d2.config.keys import ignores_undecided
from lung_d2.ct.grey import GreyLevels, image_from_planes
from lung_d2.data.augment.copy_paste import CopyPaste, DonorPool
from lung_d2.data.augment.drawn.lesions import DrawnLesions
from lung_d2.data.augment.geometry import GeometryRanges, LesionCrop, RandomDeformation
from lung_d2.data.augment.grey_levels import AnyGrey
from lung_d2.data.augment.intensity import IntensityRanges, vary_planes
from lung_d2.data.planes import read_plane
from lung_d2.errors import DatasetError, InputError

if TYPE_CHECKING:
    from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def grey_levels_from_config(cfg: CfgNode) -> GreyLevels:
    """Return the grey levels that ``INPUT.CT`` asks for."""
    ct = cfg.INPUT.CT
    return GreyLevels(kind=ct.GREY, window_center=ct.WINDOW_CENTER, window_width=ct.WINDOW_WIDTH)


class CTDatasetMapper:
    """Read a slice from disk, make its image, augment it and attach its instances.

    The image is uint8, so that Detectron2 resizes it as ``DefaultPredictor`` does; the model itself normalises it by
    ``MODEL.PIXEL_MEAN/STD``.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: list[T.Augmentation],
        grey: GreyLevels,
        channels: str = "single",
        hu_jitter: float = 0.0,
        intensity: IntensityRanges | None = None,
        copy_paste: CopyPaste | None = None,
        donors: DonorPool | None = None,
        drawn: DrawnLesions | None = None,
        any_grey: AnyGrey | None = None,
        keep_undecided: bool = False,
    ) -> None:
        """Keep the settings.

        Args:
            is_train: Augment at random and attach ``instances``; else only resize.
            augmentations: Geometric augmentations, applied to image and masks alike.
            grey: Grey levels.
            channels: ``"single"`` or ``"neighbours"``.
            hu_jitter: Standard deviation of the shift of a whole training image, in HU.
            intensity: Noise and contrast of training images; None: none.
            copy_paste: Lesions copied into training images from those of ``donors``; None: none.
            donors: The training slices; without them nothing is copied.
            drawn: Lesions drawn into training images; None: none.
            any_grey: Grey levels of training images drawn at random; None: always ``grey``.
            keep_undecided: Attach undecided regions (``iscrowd``) too, for a model that knows ``gt_crowd``; any other
                would take them for lesions. Without it they are dropped, and count as background.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.grey = grey
        self.channels = channels
        self.hu_jitter = hu_jitter
        self.intensity = intensity or IntensityRanges()
        self.copy_paste, self.donors = copy_paste, donors
        self.drawn, self.any_grey = drawn, any_grey
        self.keep_undecided = keep_undecided

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read ``INPUT``; crops, flips and sizes are Detectron2's own keys."""
        augment = cfg.INPUT.CT.AUGMENT
        geometry = GeometryRanges(augment.ROTATION, augment.SCALE, augment.TRANSLATION, augment.ELASTIC)
        deform = [RandomDeformation(geometry)] if is_train and geometry.any else []
        cut, paste = cfg.INPUT.CROP, augment.COPY_PASTE
        draw = augment.DRAW
        drawn = DrawnLesions(draw.BRONCHI, draw.OPACITIES, draw.CONFOUNDERS, draw.MAX_CLUSTERS, draw.MAX_OPACITIES)
        crop = [LesionCrop(cut.TYPE, cut.SIZE, augment.LESION_CROP)] if is_train and cut.ENABLED else []
        return {
            "is_train": is_train,
            "augmentations": [*deform, *crop, *detection_utils.build_augmentation(cfg, is_train)],
            "grey": grey_levels_from_config(cfg),
            "channels": cfg.INPUT.CT.CHANNELS,
            "hu_jitter": cfg.INPUT.CT.HU_JITTER,
            "intensity": IntensityRanges(
                augment.HU_NOISE, augment.GREY_CONTRAST, augment.GREY_BRIGHTNESS, augment.GREY_NOISE
            ),
            "copy_paste": (
                CopyPaste(paste.PROBABILITY, paste.MAX_LESIONS, paste.MAX_OVERLAP) if paste.PROBABILITY else None
            ),
            "drawn": drawn if is_train and drawn.any else None,
            "any_grey": AnyGrey(augment.ANY_GREY) if is_train and augment.ANY_GREY else None,
            "keep_undecided": ignores_undecided(cfg),
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one dataset dict.

        Returns:
            The dict with ``image``, uint8 ``(3, H, W)``; in training also ``instances`` with ``gt_boxes``,
            ``gt_classes`` and ``gt_masks`` (bitmask); those of a slice without lesions are empty, without
            ``gt_masks``, as Detectron2 makes them. Where undecided regions are kept and the image has one, ``gt_crowd``
            (bool) says which of the instances are such regions.

        Raises:
            DatasetError: The slice is missing, broken or of another size, or has no neighbours.
            InputError: A window is asked of a slice without HU.
        """
        record = copy.deepcopy(dataset_dict)
        shift = 0.0
        if self.is_train and record["hu"]:
            shift = np.random.normal(0.0, self.hu_jitter)
        planes = self._read_planes(record)
        if self.is_train:
            planes = self._augment_planes(record, planes)
        grey = self.grey
        if self.is_train and self.any_grey is not None:
            planes, grey = self.any_grey(planes, grey, record.get("pixel_spacing_mm"))
        try:
            image = image_from_planes(planes, grey=grey, hu_shift=shift)
        except InputError as error:
            raise error.at(record["file_name"]) from error
        annotations = record.pop("annotations", [])
        augmented = T.AugInput(image, boxes=_lesion_boxes(annotations) if self.is_train else None)
        transforms = self.augmentations(augmented)
        record["image"] = torch.from_numpy(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if self.is_train:
            kept = [annotation for annotation in annotations if self.keep_undecided or not _is_undecided(annotation)]
            if len(kept) < len(annotations):
                _warn_of_dropped_regions()
            record["instances"] = _build_instances(kept, transforms, augmented.image.shape[:2])
        return record

    def _augment_planes(
        self, record: dict[str, Any], planes: list[npt.NDArray[np.generic]]
    ) -> list[npt.NDArray[np.generic]]:
        """Change the values of the planes, and with copied lesions the record's ``annotations``."""
        if self.copy_paste and self.donors:
            planes = self.copy_paste(record, planes, self.donors.draw, self._read_planes)
        if self.drawn is not None:
            planes = self.drawn(record, planes)
        return vary_planes(planes, self.intensity, record.get("pixel_spacing_mm"))

    def _read_planes(self, record: dict[str, Any]) -> list[npt.NDArray[np.generic]]:
        planes = [read_plane(path) for path in self._list_planes(record)]
        for plane in planes:
            _check_size(record, plane)
        return planes

    def _list_planes(self, record: dict[str, Any]) -> list[str]:
        if self.channels == "single":
            return [record["file_name"]]
        if "neighbours" not in record:
            raise DatasetError(
                record["file_name"],
                found="no neighbouring slices",
                expected="them, for INPUT.CT.CHANNELS neighbours",
                remedy="prepare it from whole series, or set CHANNELS single",
            )
        before, after = record["neighbours"]
        return [before, record["file_name"], after]


def _check_size(record: dict[str, Any], plane: npt.NDArray[np.generic]) -> None:
    expected = (record["height"], record["width"])
    if plane.shape != expected:
        raise DatasetError(
            record["file_name"],
            found=f"{plane.shape[0]} x {plane.shape[1]} pixels",
            expected=f"{expected[0]} x {expected[1]}, as its record says",
            remedy="prepare the data set again",
        )


def _is_undecided(annotation: dict[str, Any]) -> bool:
    return bool(annotation.get("iscrowd", 0))


def _lesion_boxes(annotations: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
    """Return what a crop may be laid around: ``(N, 4)``, left, top, right, bottom."""
    decided = [one for one in annotations if not _is_undecided(one)]
    boxes = [BoxMode.convert(one["bbox"], one["bbox_mode"], BoxMode.XYXY_ABS) for one in decided]
    return np.asarray(boxes, np.float64).reshape(-1, 4)


@functools.cache
def _warn_of_dropped_regions() -> None:
    """Warn once in each process that loads slices."""
    logger.warning(
        "undecided regions (iscrowd) count as background: MODEL.PROPOSAL_GENERATOR.NAME LungRPN and "
        "MODEL.ROI_HEADS.NAME LungROIHeads would ignore them"
    )


def _build_instances(
    annotations: list[dict[str, Any]], transforms: T.TransformList, size: tuple[int, int]
) -> Instances:
    moved = [detection_utils.transform_instance_annotations(one, transforms, size) for one in annotations]
    for one in moved:
        one["segmentation"] = np.array(one["segmentation"])  # Pillow's resize gives what torch may not write to
    instances = detection_utils.annotations_to_instances(moved, size, mask_format="bitmask")
    if moved:
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()  # tight after a flip or a resize
        instances.gt_crowd = torch.tensor([_is_undecided(one) for one in moved])
    instances = detection_utils.filter_empty_instances(instances)
    if moved and not instances.gt_crowd.any():
        instances.remove("gt_crowd")
    return instances
