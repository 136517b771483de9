from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

from lung_d2.engine.crops import batch_crops, cut_crop

RESIZE = T.ResizeShortestEdge([160, 160], 400)
IMAGE = np.random.default_rng(0).integers(0, 255, (100, 125, 3), dtype=np.uint8)  # 160 x 200 once resized
WINDOW = (slice(30, 60), slice(50, 80))


def whole_and_crop():
    return (cut_crop(IMAGE, 3, RESIZE), cut_crop(IMAGE, 3, RESIZE, window=WINDOW, stride=16))


def test_crop_holds_the_pixels_of_the_resized_slice():
    whole, crop = whole_and_crop()
    (top, left), (height, width) = crop.offset, crop.pixels.shape[1:]
    assert torch.equal(crop.pixels, whole.pixels[:, top : top + height, left : left + width])
    assert whole.pixels.shape == (3, 160, 200)
    assert crop.resized == (160, 200)


def test_crop_holds_its_window_and_begins_and_ends_at_strides():
    _, crop = whole_and_crop()
    assert crop.offset == (48, 80)  # 30 and 50 times 1.6
    assert crop.pixels.shape[1:] == (48, 48)  # to 96 and 128


def test_crop_ends_with_the_slice():
    crop = cut_crop(IMAGE, 0, RESIZE, window=(slice(90, 100), slice(120, 125)), stride=16)
    assert crop.offset == (144, 192)
    assert crop.pixels.shape[1:] == (16, 8)


def found_at(boxes, size):
    generator = torch.Generator().manual_seed(1)
    return Instances(
        size,
        pred_boxes=Boxes(torch.tensor(boxes)),
        scores=torch.tensor([0.3, 0.9][: len(boxes)]),
        pred_classes=torch.tensor([0, 1][: len(boxes)]),
        pred_masks=torch.rand(len(boxes), 1, 28, 28, generator=generator),
    )


def test_what_is_found_in_a_crop_lies_where_it_does_in_the_whole_slice():
    boxes = [[85.5, 50.25, 100.0, 70.0], [90.0, 60.0, 120.5, 90.75]]
    _, crop = whole_and_crop()
    top, left = crop.offset
    moved = [[x0 - left, y0 - top, x1 - left, y1 - top] for x0, y0, x1, y1 in boxes]
    expected = detector_postprocess(found_at(boxes, (160, 200)), 100, 125)
    placed = crop.put_back(found_at(moved, crop.pixels.shape[1:]))
    assert placed.scores.tolist() == pytest.approx([0.9, 0.3])  # by falling score
    assert torch.equal(placed.pred_boxes.tensor, expected.pred_boxes.tensor.flip(0))
    assert placed.pred_masks.shape == (2, 100, 125)
    assert placed.pred_masks.any()
    assert torch.equal(placed.pred_masks, expected.pred_masks.flip(0))


def test_batches_hold_crops_of_one_size():
    large, small = whole_and_crop()
    lengths = [len(batch) for batch in batch_crops(iter([large, large, large, small, small, large]), 2)]
    assert lengths == [2, 1, 2, 1]
