"""Prediction on whole volumes, with the images and the weights of the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import configurable
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from tqdm import tqdm

from lung_d2.categories import CATEGORIES
from lung_d2.config import input_settings
from lung_d2.ct.grey import GreyLevels
from lung_d2.ct.slices import image_from_planes, slice_image
from lung_d2.data.annotations import encode_mask
from lung_d2.data.mapper import grey_levels_from_config
from lung_d2.engine.checkpoint import LungCheckpointer
from lung_d2.errors import ConfigError, InputError
from lung_d2.lesions.detections import SliceDetections

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from lung_d2.ct.volume import CTVolume


class CTPredictor:
    """Detect lesions on the slices of a volume.

    Example::

        predictor = CTPredictor(load_config("config.yaml", ["MODEL.WEIGHTS", "model_final.pth"]))
        detections = predictor(read_volume("series/"))
    """

    @configurable
    def __init__(
        self, *, model: torch.nn.Module, resize: T.Augmentation, grey: GreyLevels, channels: str = "single"
    ) -> None:
        """Keep a model that holds its weights.

        Args:
            model: Takes what Detectron2's ``GeneralizedRCNN`` takes.
            resize: The resize of the test loader.
            grey: Grey levels of the training.
            channels: Channels of the training.
        """
        self.model = model.eval()
        self.resize = resize
        self.grey = grey
        self.channels = channels

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the model, load ``MODEL.WEIGHTS`` and read ``INPUT``.

        Raises:
            ConfigError: No weights are named.
            CheckpointError: They cannot be loaded.
        """
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError("MODEL.WEIGHTS", found="empty", expected="trained weights", remedy="name a checkpoint")
        model = build_model(cfg)
        LungCheckpointer(model, settings=input_settings(cfg)).load(cfg.MODEL.WEIGHTS)
        return {
            "model": model,
            "resize": T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST),
            "grey": grey_levels_from_config(cfg),
            "channels": cfg.INPUT.CT.CHANNELS,
        }

    def __call__(self, volume: CTVolume) -> list[SliceDetections]:
        """Detect on every slice of a volume, in order.

        Returns:
            One entry for each slice, in pixels of the volume.
        """
        return [
            self.predict_image(slice_image(volume, index, grey=self.grey, channels=self.channels), index)
            for index in tqdm(range(len(volume.hu)), desc="recognise", unit="slice")
        ]

    def predict_picture(self, plane: npt.NDArray[np.uint8], slice_index: int = 0) -> SliceDetections:
        """Detect on one 8-bit grey slice ``(H, W)``, for a model trained on such slices.

        Raises:
            InputError: The model takes neighbouring slices, which a picture has not.
        """
        if self.channels != "single":
            raise InputError(
                "picture",
                found="a slice alone",
                expected="its neighbours, for INPUT.CT.CHANNELS neighbours",
                remedy="give the whole series, or use a model with CHANNELS single",
            )
        return self.predict_image(image_from_planes([plane], grey=self.grey), slice_index)

    @torch.no_grad()
    def predict_image(self, image: npt.NDArray[np.uint8], slice_index: int = 0) -> SliceDetections:
        """Detect on one image.

        Args:
            image: uint8 ``(H, W, 3)``, what :func:`lung_d2.slice_image` makes.
            slice_index: Kept in the result.
        """
        height, width = image.shape[:2]
        resized = self.resize.get_transform(image).apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        instances = self.model([{"image": tensor, "height": height, "width": width}])[0]["instances"].to("cpu")
        order = torch.argsort(instances.scores, descending=True, stable=True)
        instances = instances[order]
        coco_ids = np.array([category.coco_id for category in CATEGORIES])
        return SliceDetections(
            slice_index=slice_index,
            boxes=instances.pred_boxes.tensor.numpy().astype(np.float32),
            scores=instances.scores.numpy().astype(np.float32),
            category_ids=coco_ids[instances.pred_classes.numpy()].astype(np.int64),
            masks=tuple(encode_mask(mask) for mask in instances.pred_masks.numpy()),
        )
