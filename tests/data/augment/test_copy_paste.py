from __future__ import annotations

import copy

import numpy as np
import pytest
from detectron2.data import DatasetFromList
from detectron2.structures import BoxMode

from lung_d2.data.augment.copy_paste import INSIDE_SHARE, CopyPaste, DonorPool
from lung_d2.data.augment.cutouts import estimate_lung
from lung_d2.masks import decode_mask, encode_mask, mask_box
from records import LUNG_HU, draw_chest
from tiny import ring, square


def record(name, *, crowds=(0,), data_set="a", hu=True, size=64, neighbours=False):
    """Return a dataset dict; ``crowds`` says of each annotation whether it is undecided."""
    annotations = [{"iscrowd": crowd} for crowd in crowds]
    given = {"file_name": f"/root/{data_set}/images/s/{name}.png", "hu": hu, "height": size, "width": size}
    return given | {"annotations": annotations} | ({"neighbours": []} if neighbours else {})


def drawn_names(records, asking, count=40):
    pool = DonorPool(records)
    np.random.seed(0)
    drawn = [pool.draw(asking) for _ in range(count)]
    return {None if one is None else one["file_name"].rsplit("/", 1)[1].removesuffix(".png") for one in drawn}


def test_donors_have_lesions_that_are_decided():
    records = [record("empty", crowds=()), record("crowd", crowds=(1,)), record("both", crowds=(1, 0)), record("x")]
    assert drawn_names(records, record("asking")) == {"both", "x"}


def test_donors_are_of_the_same_data_set_size_and_values():
    others = [record("a", data_set="b"), record("b", hu=False), record("c", size=32), record("d", neighbours=True)]
    assert drawn_names([*others, record("like")], record("asking")) == {"like"}
    assert drawn_names(others, record("asking")) == {None}


def test_slice_is_not_its_own_donor():
    assert drawn_names([record("only")], record("only")) == {None}


def test_slice_without_lesions_finds_donors():
    assert drawn_names([record("full")], record("empty", crowds=())) == {"full"}


def test_seed_decides_who_is_drawn():
    pool = DonorPool(DatasetFromList([record(str(number)) for number in range(20)]))
    drawn = []
    for seed in (3, 3, 4):
        np.random.seed(seed)
        drawn.append([pool.draw(record("asking"))["file_name"] for _ in range(5)])
    assert drawn[0] == drawn[1] != drawn[2]


SIZE = 128
NONE = np.zeros((SIZE, SIZE), bool)
LESION_HU = -300


def annotate(mask, category=0, crowd=0):
    x0, y0, x1, y1 = mask_box(mask)
    box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "bbox_mode": BoxMode.XYWH_ABS}
    return box | {"category_id": category, "segmentation": encode_mask(mask), "iscrowd": crowd}


def slice_with(*lesions, seed=0, crowd=None, noise=0.0):
    """Return dataset dict and plane of a chest with lesions of -300 HU."""
    plane, _ = draw_chest(seed=seed)
    for _, mask in lesions:
        plane[mask] = LESION_HU
    if noise:
        plane = np.rint(plane + np.random.default_rng(seed).normal(0, noise, plane.shape)).astype(np.int16)
    annotations = [annotate(mask, category) for category, mask in lesions]
    if crowd is not None:
        annotations.append(annotate(crowd, crowd=1))
    return {"annotations": annotations}, plane


DONOR = slice_with((0, square(SIZE, 60, 34, 9)), seed=9)


def paste(target, donor=DONOR, seed=0, **settings):
    """Copy lesions of ``donor`` into ``target``; return the new record and plane."""
    np.random.seed(seed)
    record = copy.deepcopy(target[0])
    rule = CopyPaste(**({"probability": 1.0} | settings))
    planes = rule(record, [target[1]], lambda asking: copy.deepcopy(donor[0]), lambda given: [donor[1]])
    return record, planes[0]


def masks_of(record):
    return [decode_mask(annotation["segmentation"]) for annotation in record["annotations"]]


def test_lesion_free_slice_receives_a_lesion_in_its_lung():
    target = slice_with()
    places = set()
    for seed in range(20):
        record, plane = paste(target, seed=seed)
        (mask,) = masks_of(record)
        assert not (mask & ~estimate_lung(target[1], NONE)).any()
        assert INSIDE_SHARE * 81 <= mask.sum() <= 81
        assert abs(plane[mask].mean() - LESION_HU) < 60
        places.add(mask_box(mask)[:2])
    assert len(places) > 15


def test_values_change_near_the_copied_lesion_and_in_the_lung_alone():
    target = slice_with()
    record, plane = paste(target)
    x0, y0, x1, y1 = mask_box(masks_of(record)[0])
    changed = plane != target[1]
    near = np.zeros_like(changed)
    near[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4] = True
    assert changed.any()
    assert not (changed & ~near).any()
    assert not (changed & ~estimate_lung(target[1], NONE)).any()


def test_border_is_blended():
    """The lung of the donor, 200 HU denser, passes into that of the slice within four pixels."""
    dense = DONOR[1].copy()
    dense[estimate_lung(dense, NONE) & (dense < -700)] += 200
    record, plane = paste(slice_with(), (DONOR[0], dense))
    x0, y0, _, y1 = mask_box(masks_of(record)[0])
    steps = plane[y0 + 2 : y1 - 2, x0 - 5 : x0].mean(axis=0) - LUNG_HU
    assert (np.diff(steps) > -10).all()
    assert abs(steps[0]) < 15
    assert 60 < steps[-1] < 190


def test_copied_annotation_has_its_category_and_a_tight_box():
    donor = slice_with((1, ring(SIZE, 58, 34, 14, wall=3)), seed=9)
    record, plane = paste(slice_with(), donor)
    (annotation,) = record["annotations"]
    mask = decode_mask(annotation["segmentation"])
    assert annotation["category_id"] == 1
    assert annotation["bbox_mode"] == BoxMode.XYXY_ABS
    assert annotation["bbox"] == list(mask_box(mask))
    x0, y0, x1, y1 = mask_box(mask)
    assert not mask[(y0 + y1) // 2, (x0 + x1) // 2]  # the lumen is no wall
    assert plane[(y0 + y1) // 2, (x0 + x1) // 2] < LUNG_HU + 60  # but is copied with it


def test_lesions_beneath_lose_what_is_hidden():
    below = square(SIZE, 46, 28, 30) & draw_chest()[1]
    target = slice_with((1, below))
    hidden = 0
    for seed in range(30):
        record, _ = paste(target, seed=seed, max_overlap=1.0)
        masks = masks_of(record)
        assert len(masks) == 2
        assert not (masks[0] & masks[1]).any()
        left, copied = masks
        assert np.array_equal(left, below & ~copied)
        assert record["annotations"][0]["bbox"] == list(mask_box(left))
        hidden += bool((below & copied).any())
    assert hidden > 5


def test_lesion_that_is_hidden_as_a_whole_has_no_annotation():
    small = square(SIZE, 62, 36, 3)
    donor = slice_with((0, square(SIZE, 50, 28, 24) & draw_chest()[1]), seed=9)
    counts = {
        len(paste(slice_with((1, small)), donor, seed=seed, max_overlap=1.0)[0]["annotations"]) for seed in range(40)
    }
    assert counts == {1, 2}


@pytest.mark.parametrize("most", [0.0, 0.3])
def test_overlap_stays_below_its_share(most):
    below = square(SIZE, 46, 28, 30) & draw_chest()[1]
    for seed in range(30):
        record, _ = paste(slice_with((0, below)), seed=seed, max_overlap=most)
        masks = masks_of(record)
        hidden = np.count_nonzero(below) - np.count_nonzero(masks[0])
        assert hidden <= most * 81


def test_undecided_regions_of_the_slice_stay_as_they_are():
    region = draw_chest()[1] & (np.arange(SIZE) < 64)  # a whole lung
    target = slice_with(crowd=region)
    for seed in range(20):
        record, plane = paste(target, seed=seed)
        *copied, crowd = record["annotations"]
        assert crowd == target[0]["annotations"][0]
        assert np.array_equal(plane[region], target[1][region])
        assert not any((decode_mask(one["segmentation"]) & region).any() for one in copied)


def test_undecided_regions_are_not_copied():
    donor = slice_with(crowd=square(SIZE, 60, 34, 9))
    assert paste(slice_with(), donor)[0]["annotations"] == []


def test_number_of_lesions_is_drawn_up_to_the_most():
    lesions = [(0, square(SIZE, top, left, 6)) for top in (45, 60, 75) for left in (30, 40, 82)]
    counts = [
        len(paste(slice_with(), slice_with(*lesions), seed, max_lesions=3)[0]["annotations"]) for seed in range(40)
    ]
    assert set(counts) == {1, 2, 3}


def test_share_of_the_slices_is_that_asked_for():
    target = slice_with()
    changed = [bool(paste(target, seed=seed, probability=0.25)[0]["annotations"]) for seed in range(200)]
    assert 0.15 < np.mean(changed) < 0.35


def test_lesions_of_a_much_noisier_slice_are_not_copied():
    noisy = slice_with((0, square(SIZE, 60, 34, 9)), seed=9, noise=60.0)
    assert paste(slice_with(), noisy)[0]["annotations"] == []
    assert len(paste(slice_with(noise=60.0, seed=3), noisy)[0]["annotations"]) == 1


def test_slice_without_lung_or_donor_stays_as_it_is():
    bare = {"annotations": []}, np.full((SIZE, SIZE), -1000, np.int16)
    record, plane = paste(bare)
    assert (record, plane is bare[1]) == ({"annotations": []}, True)
    target = slice_with()
    planes = CopyPaste(1.0)(target[0], [target[1]], lambda asking: None, pytest.fail)
    assert planes[0] is target[1]


def test_grey_slices_are_brought_to_the_level_of_the_lung():
    """The donor is 60 grey levels darker throughout; copied, its lesion is as far above the lung as it was."""

    def grey(plane, shift):
        return np.clip((plane.astype(np.float32) + 1000) / 8 + shift, 0, 255).astype(np.uint8)

    target, donor = slice_with(), DONOR
    record, plane = paste((target[0], grey(target[1], 60)), (donor[0], grey(donor[1], 0)))
    (mask,) = masks_of(record)
    assert plane.dtype == np.uint8
    assert plane[mask].mean() == pytest.approx((LESION_HU + 1000) / 8 + 60, abs=8)


def test_neighbours_receive_the_neighbours_of_the_lesion():
    target, donor = slice_with(), DONOR
    np.random.seed(0)
    record = copy.deepcopy(target[0])
    given = [donor[1], donor[1], np.full_like(donor[1], 500)]
    planes = CopyPaste(1.0)(record, [target[1]] * 3, lambda asking: donor[0], lambda one: given)
    (mask,) = masks_of(record)
    assert np.array_equal(planes[0], planes[1])
    assert planes[2][mask].mean() > 300


def test_seed_decides_everything_and_nothing_given_changes():
    target = slice_with((1, square(SIZE, 50, 36, 8)))
    before = copy.deepcopy(target)
    first, again, other = (paste(target, seed=seed) for seed in (5, 5, 6))
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])
    assert target[0] == before[0]
    assert np.array_equal(target[1], before[1])
