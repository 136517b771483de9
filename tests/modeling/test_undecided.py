from __future__ import annotations

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from lung_d2.modeling.undecided import mostly_inside, share_inside, split_undecided
from tiny import ring, square


def region(*masks):
    return torch.from_numpy(sum(masks[1:], masks[0]))


def share(box, mask):
    return share_inside(torch.tensor([box], dtype=torch.float32), mask).item()


# Rows 4 to 7 and columns 8 to 11 of 16 x 16 pixels: 16 pixels.
@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([8, 4, 12, 8], 1.0),
        ([9, 5, 11, 7], 1.0),
        ([0, 0, 16, 16], 16 / 256),
        ([6, 4, 10, 8], 2 * 4 / 16),
        ([8, 0, 12, 5], 4 * 1 / 20),
        ([4, 8, 8, 12], 0.0),  # where rows and columns are mixed up
        ([12, 4, 16, 8], 0.0),  # touches
        ([8.5, 4.25, 9, 4.5], 1.0),
        ([11.5, 7.25, 12.5, 8.25], 0.5 * 0.75 / 1),
        ([8, 4, 8, 8], 0.0),  # without area
    ],
)
def test_share_by_hand(box, expected):
    assert share(box, region(square(16, 4, 8, 4))) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([-4, -4, 4, 4], 16 / 64),
        ([12, 12, 20, 16], 16 / 32),
        ([-8, -8, 24, 24], 256 / 1024),
        ([20, 20, 30, 30], 0.0),
        ([-9, 3, -2, 9], 0.0),
    ],
)
def test_what_is_beyond_the_image_counts_as_outside(box, expected):
    assert share(box, torch.ones(16, 16, dtype=torch.bool)) == expected


def test_hole_and_gap_are_outside():
    """A ring of 8 x 8 pixels with a hole of 4 x 4, and a square of 4 x 4 in another place."""
    pieces = region(ring(16, 0, 0, 8, wall=2), square(16, 12, 12, 4))
    assert share([0, 0, 8, 8], pieces) == 48 / 64
    assert share([2, 2, 6, 6], pieces) == 0
    assert share([8, 8, 12, 12], pieces) == 0  # within the box of the pieces
    assert share([0, 0, 16, 16], pieces) == (48 + 16) / 256


def test_share_is_the_counted_one_for_any_integer_box():
    draw = torch.Generator().manual_seed(0)
    mask = torch.rand(20, 30, generator=draw) > 0.6
    first = torch.stack([torch.randint(0, 30, (200,), generator=draw), torch.randint(0, 20, (200,), generator=draw)], 1)
    boxes = torch.cat([first, first + torch.randint(1, 12, (200, 2), generator=draw)], dim=1)
    counted = [mask[y0:y1, x0:x1].sum() / ((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in boxes.tolist()]
    assert torch.allclose(share_inside(boxes.float(), mask).float(), torch.stack(counted))


def test_half_is_not_mostly():
    mask = region(square(16, 0, 0, 8))
    boxes = Boxes(torch.tensor([[4.0, 0, 12, 8], [3.0, 0, 11, 8], [12.0, 12, 16, 16]]))
    assert mostly_inside(boxes, mask).tolist() == [False, True, False]


def test_no_boxes_have_no_shares():
    assert share_inside(torch.empty(0, 4), region(square(16, 4, 8, 4))).shape == (0,)


def test_share_stays_on_the_device():
    """On the meta device, whatever comes from or goes to another one raises."""
    boxes, mask = torch.empty(5, 4, device="meta"), torch.empty(16, 16, dtype=torch.bool, device="meta")
    assert share_inside(boxes, mask).device.type == "meta"


def instances(*masks):
    built = Instances((16, 16))
    built.gt_masks = BitMasks(torch.stack([torch.from_numpy(mask) for mask in masks]))
    built.gt_boxes = built.gt_masks.get_bounding_boxes()
    built.gt_classes = torch.arange(len(masks))
    return built


def test_lesions_and_undecided_regions_are_parted():
    mixed = instances(square(16, 0, 0, 4), square(16, 8, 8, 4), square(16, 10, 8, 4), square(16, 2, 2, 4))
    mixed.gt_crowd = torch.tensor([False, True, True, False])
    lesions, undecided = split_undecided(mixed)
    assert lesions.gt_classes.tolist() == [0, 3]
    assert set(lesions.get_fields()) == {"gt_boxes", "gt_classes", "gt_masks"}
    assert torch.equal(undecided, region(square(16, 8, 8, 4), square(16, 10, 8, 4)))  # two that overlap are one
    assert mixed.has("gt_crowd")


def test_slice_without_undecided_regions_is_handed_through():
    given = instances(square(16, 0, 0, 4))
    assert split_undecided(given) == (given, None)


def test_slice_with_undecided_regions_alone_has_no_lesion():
    given = instances(square(16, 0, 0, 4))
    given.gt_crowd = torch.tensor([True])
    lesions, undecided = split_undecided(given)
    assert lesions.gt_boxes.tensor.shape == (0, 4)
    assert undecided.sum() == 16
