"""Lungs and lobes, and how much of them lesions occupy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lesions.solids import axial_volume, block
from lung_d2.errors import GeometryError, InputError
from lung_d2.lesions import LOBES, LUNGMASK_LOBES, TOTALSEGMENTATOR_LOBES, LobeField, build_lobe_field
from lung_d2.lesions.lobes import build_surroundings

SHAPE = (4, 10, 20)
VOLUME = axial_volume(SHAPE, (2.0, 1.0, 1.0), positions_mm=[0, 2, 3, 7])  # slices stand for 2, 1.5, 2.5 and 4 mm


@pytest.mark.parametrize("values", [LUNGMASK_LOBES, TOTALSEGMENTATOR_LOBES])
def test_lobes_are_taken_out_and_other_organs_dropped(values):
    labels = np.zeros((1, 1, 8), np.uint8)
    labels[0, 0, 1:6] = sorted(values)
    labels[0, 0, 6:] = 51, 255
    assert build_lobe_field(labels, values).labels.tolist() == [[[0, 1, 2, 3, 4, 5, 0, 0]]]
    assert [values[value] for value in sorted(values)] == list(LOBES)


def test_the_right_lung_is_one_and_the_left_two():
    labels = np.arange(6, dtype=np.uint16).reshape(1, 1, 6)
    assert build_lobe_field(labels).lung_labels().tolist() == [[[0, 2, 2, 1, 1, 1]]]


def test_a_volume_without_lobes_is_refused():
    with pytest.raises(InputError, match="lobe labels: no voxel with the value of a lobe"):
        build_lobe_field(np.full((1, 2, 2), 7, np.uint8))


def test_an_unknown_name_is_refused():
    with pytest.raises(InputError, match="lobe 'lingula'"):
        build_lobe_field(np.ones((1, 2, 2), np.uint8), {1: "lingula"})


@dataclass(frozen=True)
class Lungs:
    labels: np.ndarray


def lungs():
    """Return lungs of 100 pixels each on every slice, the left half of the picture the right lung: 1 ml each."""
    labels = np.full(SHAPE, 2, np.uint8)
    labels[:, :, :10] = 1
    return Lungs(labels)


def patches_of(mask):
    rows, columns = slice(0, SHAPE[1]), slice(0, SHAPE[2])
    return [(index, (rows, columns), plane) for index, plane in enumerate(mask)]


def test_volumes_follow_the_thickness_of_each_slice():
    mask = block(SHAPE, slice(1, 3), slice(0, 5), slice(0, 10))
    taken = build_surroundings(VOLUME).occupancy(patches_of(mask))
    assert taken.voxel_count == 100
    assert taken.volume_ml == pytest.approx(50 * (1.5 + 2.5) / 1000)


def test_the_share_of_the_lung_is_of_what_lies_inside_it():
    labels = lungs().labels
    labels[:, 5:] = 0  # lungs of 50 pixels a side on slices of 10 mm together: 0.5 ml each
    mask = block(SHAPE, slice(0, 1), slice(0, 10), slice(0, 20))
    taken = build_surroundings(VOLUME, Lungs(labels)).occupancy(patches_of(mask))
    assert (taken.right_ml, taken.left_ml) == (pytest.approx(0.1), pytest.approx(0.1))
    assert taken.volume_ml == pytest.approx(0.4)
    assert taken.lung_share_percent == pytest.approx(100 * 0.2 / 1.0)


@pytest.mark.parametrize(
    ("columns", "side"),
    [
        (slice(0, 10), "right"),
        (slice(10, 20), "left"),
        (slice(9, 20), "left"),
        (slice(9, 19), "both"),
        (slice(5, 15), "both"),
    ],
)
def test_the_side_is_where_nine_tenths_lie(columns, side):
    mask = block(SHAPE, slice(0, 4), slice(0, 5), columns)
    assert build_surroundings(VOLUME, lungs()).occupancy(patches_of(mask)).side == side


def test_outside_the_lungs_there_is_no_side():
    empty = Lungs(np.zeros(SHAPE, np.uint8))
    taken = build_surroundings(VOLUME, empty).occupancy(patches_of(block(SHAPE, slice(0, 1), slice(0, 5), slice(0, 5))))
    assert (taken.side, taken.lung_share_percent, taken.right_ml) == (None, None, 0.0)


def test_without_lungs_nothing_is_said_of_them():
    taken = build_surroundings(VOLUME).occupancy(patches_of(np.ones(SHAPE, bool)))
    assert (taken.side, taken.lung_share_percent, taken.right_ml, taken.left_ml, taken.lobes) == (None,) * 4 + ((),)


def test_lobes_have_their_own_shares():
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :, :4], labels[:, :, 4:8], labels[:, :, 8:12], labels[:, :, 12:16] = 1, 2, 3, 5
    mask = block(SHAPE, slice(0, 4), slice(0, 5), slice(2, 10))
    shares = build_surroundings(VOLUME, lobes=LobeField(labels)).occupancy(patches_of(mask)).lobes
    assert [share.lobe for share in shares] == [
        "left upper",
        "left lower",
        "right upper",
        "right middle",
        "right lower",
    ]
    assert [share.volume_ml for share in shares] == pytest.approx([0.1, 0.2, 0.1, 0.0, 0.0])
    assert [share.share_percent for share in shares if share.lobe != "right middle"] == pytest.approx([25, 50, 25, 0])
    assert shares[3].share_percent is None


@pytest.mark.parametrize("name", ["lung", "lobe"])
def test_labels_of_another_grid_are_refused(name):
    labels = np.ones((4, 10, 21), np.uint8)
    with pytest.raises(GeometryError, match=rf"{name} labels: shape \(4, 10, 21\)"):
        build_surroundings(VOLUME, **({"lungs": Lungs(labels)} if name == "lung" else {"lobes": LobeField(labels)}))
