"""Prediction on whole volumes, with the images and the weights of the training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import configurable
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager
from tqdm import tqdm

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.ct.grey import GreyLevels, image_from_planes, slice_image
from lung_d2.data.mapper import grey_levels_from_config
from lung_d2.engine.checkpoint import LungCheckpointer
from lung_d2.engine.crops import Crop, batch_crops, by_falling_score, cut_crop
from lung_d2.engine.inference import map_side_by_side, prepare_model
from lung_d2.engine.lung_view import LungUse, LungView, Window
from lung_d2.engine.openvino_backend import COMPILED, use_openvino
from lung_d2.engine.weights.file import bound_settings, config_of, read_weights_file
from lung_d2.engine.weights.names import SUFFIX, find_weights
from lung_d2.errors import CheckpointError, ConfigError, InputError
from lung_d2.lesions.detections import SliceDetections
from lung_d2.masks import encode_mask

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from lung_d2.ct.volume import CTVolume
    from lung_d2.lungs.field import LungField

GLOBAL_LAYERS = (
    *(torch.nn.GroupNorm, torch.nn.InstanceNorm2d, torch.nn.MultiheadAttention),
    *(torch.nn.AdaptiveAvgPool2d, torch.nn.AdaptiveMaxPool2d),
)
"""In a backbone they make every feature depend on the whole image, and so on how much of it is cut off. On held-out
phantoms, cropping to the lungs changed one in four detections of a network with group norm, and one in forty of one
with batch norm."""
LEAST_STRIDE = 32
"""Pixels of the resized slice, for a backbone that does not tell the stride of its coarsest level."""
BACKENDS = ("torch", "openvino")
"""What computes backbone and candidate regions; all but the first need a package."""
GPU_BATCH, CPU_BATCH = 8, 1
"""Slices run together by default: a CPU is no faster with more, and runs several batches side by side instead."""


@dataclass(frozen=True)
class ModelOrigin:
    """Where a model comes from: tells whether two results are of the same one.

    Attributes:
        config_text: The config as YAML, without keys that are folders, files or devices.
        weights: The file of the weights.
        provenance: JSON of what a weights file says of itself, see :mod:`lung_d2.engine.weights.export`; empty for a
            checkpoint.
    """

    config_text: str
    weights: Path
    provenance: str = ""

    @classmethod
    def of(cls, cfg: CfgNode) -> ModelOrigin:
        """Return where the model of a config comes from; weights with an address are downloaded.

        Raises:
            CheckpointError: There is no such file, or it is a weights file that cannot be used.
        """
        path = find_weights(cfg.MODEL.WEIGHTS) or Path(PathManager.get_local_path(cfg.MODEL.WEIGHTS))
        if not path.is_file():
            raise CheckpointError(path, found="no such file", remedy="name an existing file")
        provenance = json.dumps(read_weights_file(path).provenance) if path.suffix == SUFFIX else ""
        plain = cfg.clone()
        plain.defrost()
        plain.MODEL.WEIGHTS, plain.MODEL.DEVICE, plain.OUTPUT_DIR = "", "", ""
        return cls(str(plain.dump()), path, provenance)


class CTPredictor:
    """Detect lesions on the slices of a volume.

    Example::

        predictor = CTPredictor(load_config("config.yaml", ["MODEL.WEIGHTS", "model_final.pth"]))
        predictor = CTPredictor.from_weights("NAME")  # or "file.safetensors": the config is in it
        detections = predictor(volume := read_volume("series/"), find_lungs(volume))
    """

    @configurable
    def __init__(
        self,
        *,
        model: torch.nn.Module,
        resize: T.Augmentation,
        grey: GreyLevels,
        channels: str = "single",
        batch_size: int | None = None,
        categories: Categories = CATEGORIES,
        origin: ModelOrigin | None = None,
        augmented: Any = None,
    ) -> None:
        """Keep a model that holds its weights.

        Args:
            model: Detectron2's ``GeneralizedRCNN``, or what takes and gives the same.
            resize: The resize of the test loader.
            grey: Grey levels of the training.
            channels: Channels of the training.
            batch_size: Slices run together, 1 or more; None: :data:`GPU_BATCH` or :data:`CPU_BATCH`. Detections do
                not depend on it, except for rounding.
            categories: What the model tells apart, in the order of its classes.
            origin: Where the model comes from, for reports.
            augmented: The model with test-time augmentation, which then detects instead, on whole slices; the resize
                should keep their size.

        Raises:
            ConfigError: The batch size is below 1.
        """
        if batch_size is not None and batch_size < 1:
            raise ConfigError("batch size", found=str(batch_size), expected="1 or more", remedy="correct it")
        self.model: Any = model.eval()
        self.resize = resize
        self.grey = grey
        self.channels = channels
        self.categories = categories
        self.origin = origin
        self.augmented = augmented
        backbone = getattr(model, "backbone", model)
        self.stride = getattr(backbone, "size_divisibility", 0) or LEAST_STRIDE
        # Augmentation resizes its input by the shorter side, so that a crop would become larger than the whole slice.
        self.takes_crops = augmented is None and not any(
            isinstance(layer, GLOBAL_LAYERS) for layer in backbone.modules()
        )
        self.device = next(model.parameters()).device
        self.batch_size = batch_size or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)

    @classmethod
    def from_config(cls, cfg: CfgNode, batch_size: int | None = None, backend: str = BACKENDS[0]) -> dict[str, Any]:
        """Build the model, load ``MODEL.WEIGHTS`` and read ``INPUT`` and ``TEST.AUG``; ``backend`` is of BACKENDS.

        Raises:
            ConfigError: No weights are named, or the backend is unknown or not for this device.
            CheckpointError: The weights cannot be loaded.
            DependencyError: The backend is not installed.
        """
        if backend not in BACKENDS:
            raise ConfigError("backend", found=backend, expected=" or ".join(BACKENDS), remedy="choose one of them")
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError("MODEL.WEIGHTS", found="empty", expected="trained weights", remedy="name a checkpoint")
        model = build_model(cfg)
        checkpointer = LungCheckpointer(model, settings=bound_settings(cfg))
        checkpointer.load(cfg.MODEL.WEIGHTS)
        if not cfg.TEST.AUG.ENABLED:  # which gives, and compares, what Detectron2's own does
            prepare_model(model, COMPILED if backend == "openvino" else ())
        if backend == "openvino":
            use_openvino(model)
        images = without_resize(cfg).INPUT if cfg.TEST.AUG.ENABLED else cfg.INPUT
        return {
            "model": model,
            "resize": T.ResizeShortestEdge([images.MIN_SIZE_TEST] * 2, images.MAX_SIZE_TEST),
            "augmented": build_tta(cfg, model) if cfg.TEST.AUG.ENABLED else None,
            "grey": grey_levels_from_config(cfg),
            "channels": cfg.INPUT.CT.CHANNELS,
            "batch_size": batch_size,
            "categories": checkpointer.categories,
            "origin": ModelOrigin.of(cfg),
        }

    @classmethod
    def from_weights(
        cls,
        weights: str | os.PathLike[str],
        opts: Sequence[str] = (),
        batch_size: int | None = None,
        backend: str = BACKENDS[0],
    ) -> CTPredictor:
        """Build the model of a weights file.

        Args:
            weights: A ``.safetensors`` file, or the name of one, see :mod:`lung_d2.engine.weights.names`.
            opts: ``KEY VALUE`` pairs that override its config.
            batch_size: See :class:`CTPredictor`.
            backend: Of :data:`BACKENDS`.

        Raises:
            CheckpointError: It cannot be loaded.
            ConfigError: An override cannot be used.
        """
        return cls(config_of(weights, opts), batch_size=batch_size, backend=backend)

    @property
    def device_name(self) -> str:
        """What the model runs on, as ``cpu`` or ``cuda:0 (NVIDIA H200)``."""
        if self.device.type != "cuda":
            return str(self.device)
        return f"{self.device} ({torch.cuda.get_device_name(self.device)})"

    def __call__(
        self,
        volume: CTVolume,
        lungs: LungField | None = None,
        use: LungUse | None = None,
        *,
        progress: bool | Callable[[int, int], None] = True,
    ) -> list[SliceDetections]:
        """Detect on the slices of a volume, in order.

        Args:
            volume: The CT.
            lungs: Where its lungs are. Without them, or with an empty field, every slice is run whole.
            use: What the lungs are used for; by default all of :class:`LungUse`.
            progress: Whether to show a bar; or what is called with the slices done and all that are run, after each.

        Returns:
            One entry for each slice, run or not, in pixels of the volume.

        Raises:
            InputError: The model takes neighbouring slices, and the volume has one alone.
        """
        slice_image(volume, 0, grey=self.grey, channels=self.channels)  # refused before the bar opens
        view = self.view_of(volume, lungs, use)
        found = [self._pack(index) for index in range(len(volume.hu))]
        images = ((index, slice_image(volume, index, grey=self.grey, channels=self.channels)) for index in view.slices)
        crops = (self._cut(image, index, view.window) for index, image in images)
        with tqdm(total=len(view.slices), desc="recognise", unit="slice", disable=progress is not True) as bar:
            for done, one in enumerate(self._predict(crops, view), start=1):
                found[one.slice_index] = one
                bar.update()
                if callable(progress):
                    progress(done, len(view.slices))
        return found

    def view_of(self, volume: CTVolume, lungs: LungField | None = None, use: LungUse | None = None) -> LungView:
        """Return the part of a volume that the network looks at: the box of the lungs, if its layers allow that."""
        use = use or LungUse()
        if use.crop is None or self.augmented is not None:
            use = replace(use, crop=self.takes_crops)
        return LungView.of(volume, lungs, use)

    def predict_pictures(self, planes: Sequence[npt.NDArray[np.uint8]]) -> list[SliceDetections]:
        """Detect on 8-bit grey slices ``(H, W)``, for a model trained on such.

        Raises:
            InputError: The model takes HU, or neighbouring slices, which a picture does not have.
        """
        if self.channels != "single":
            raise InputError(
                "picture",
                found="a slice alone",
                expected="its neighbours, for INPUT.CT.CHANNELS neighbours",
                remedy="give the whole series, or use a model with CHANNELS single",
            )
        crops = (self._cut(image_from_planes([plane], grey=self.grey), index) for index, plane in enumerate(planes))
        return list(self._predict(crops))

    def predict_image(self, image: npt.NDArray[np.uint8], slice_index: int = 0) -> SliceDetections:
        """Detect on one image.

        Args:
            image: uint8 ``(H, W, 3)``, what :func:`lung_d2.slice_image` makes.
            slice_index: Kept in the result.
        """
        (found,) = self._run([self._cut(image, slice_index)])
        return found

    def _cut(self, image: npt.NDArray[np.uint8], slice_index: int, window: Window | None = None) -> Crop:
        return cut_crop(image, slice_index, self.resize, window=window, stride=self.stride)

    def _predict(self, crops: Iterator[Crop], view: LungView | None = None) -> Iterator[SliceDetections]:
        batches = batch_crops(crops, self.batch_size)
        work = partial(self._run, view=view)
        # The augmentation of Detectron2 changes its model for a moment, which others would see.
        made = map(work, batches) if self.augmented is not None else map_side_by_side(work, batches, self.device.type)
        for found in made:
            yield from found

    def _run(self, batch: list[Crop], view: LungView | None = None) -> list[SliceDetections]:
        found = []
        for placed, crop in zip(self._detect(batch), batch, strict=True):
            if view is not None:
                placed = placed[torch.from_numpy(view.inside(crop.slice_index, placed.pred_masks.numpy()))]
            found.append(self._pack(crop.slice_index, placed))
        return found

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _detect(self, batch: list[Crop]) -> list[Instances]:
        if self.augmented is None:
            raw = self.model.inference([{"image": crop.pixels} for crop in batch], do_postprocess=False)
            return [crop.put_back(found) for found, crop in zip(raw, batch, strict=True)]
        inputs = [{"image": crop.pixels, "height": crop.size[0], "width": crop.size[1]} for crop in batch]
        return [by_falling_score(one["instances"].to("cpu")) for one in self.augmented(inputs)]

    def _pack(self, slice_index: int, instances: Instances | None = None) -> SliceDetections:
        if instances is None:
            none = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
            return SliceDetections(slice_index, *none, masks=())
        coco_ids = np.array([category.coco_id for category in self.categories])
        return SliceDetections(
            slice_index=slice_index,
            boxes=instances.pred_boxes.tensor.numpy().astype(np.float32),
            scores=instances.scores.numpy().astype(np.float32),
            category_ids=coco_ids[instances.pred_classes.numpy()].astype(np.int64),
            masks=tuple(encode_mask(mask) for mask in instances.pred_masks.numpy()),
        )


def build_tta(cfg: CfgNode, model: torch.nn.Module) -> Any:
    """Wrap a model for test-time augmentation: it detects on every size and flip of ``TEST.AUG``.

    The boxes of all of them go through one suppression; masks are averaged over them.

    Args:
        cfg: The model's.
        model: Detectron2's ``GeneralizedRCNN``.

    Returns:
        A ``GeneralizedRCNNWithTTA``, which takes and gives the same as the model in evaluation; its images should keep
        their own size, see :func:`without_resize`.

    Raises:
        ConfigError: Detectron2 cannot augment for this model.
    """
    try:
        return GeneralizedRCNNWithTTA(cfg, model).eval()
    except AssertionError as error:
        raise ConfigError(
            "TEST.AUG.ENABLED", found=str(error), expected="a GeneralizedRCNN without keypoints", remedy="set it False"
        ) from error


def without_resize(cfg: CfgNode) -> CfgNode:
    """Return a copy of a config whose test images keep their size, so that only the augmentation resizes them."""
    native = cfg.clone()
    native.defrost()
    native.INPUT.MIN_SIZE_TEST = 0  # Detectron2's ResizeShortestEdge then does not resize
    return native
