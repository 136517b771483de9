"""Series that lie otherwise than most, planted among chests drawn by hand and real ones."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lung_d2.ct.grey import GreyLevels
from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.planes import read_picture
from lung_d2.data.quality.facts import THUMBNAIL_SIDE, measure_slice
from lung_d2.data.quality.fingerprint import (
    FINGERPRINT_BITS,
    WORDS,
    find_turned,
    fingerprint_distances,
    slice_fingerprint,
    unpack_fingerprint,
)
from lung_d2.errors import DatasetError
from lung_d2.phantom import build_patient, preset_by_name
from records import draw_chest

TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored top to bottom": np.flipud,
    "mirrored left to right": np.fliplr,
    "turned by 180 degrees": lambda image: np.rot90(image, 2),
    "turned by 90 degrees": lambda image: np.rot90(image, 3),  # what turns it back
    "turned by 270 degrees": lambda image: np.rot90(image, 1),
    "transposed": np.transpose,
    "transposed and turned by 180 degrees": lambda image: np.rot90(image, 2).T,
}


def thumbnail_of(plane: np.ndarray) -> np.ndarray:
    text = measure_slice(AnnotatedSlice(plane=plane, instances=(), slice_index=0))["thumbnail"]
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE).astype(float)


def chests(count: int) -> dict[str, np.ndarray]:
    return {f"s{number}": thumbnail_of(draw_chest(seed=number)[0]) for number in range(count)}


def test_chests_that_lie_alike_are_left_alone() -> None:
    assert find_turned(chests(8)) == []


@pytest.mark.parametrize("turn", TURNS)
def test_one_turned_series_is_found_and_named(turn: str) -> None:
    thumbnails = chests(8)
    thumbnails["s3"] = TURNS[turn](thumbnails["s3"])
    assert [(found.series, found.turn) for found in find_turned(thumbnails)] == [("s3", turn)]


@pytest.mark.parametrize("first", [True, False])
def test_most_decide_whoever_comes_first(first: bool) -> None:
    thumbnails = chests(9)
    turned = [f"s{number}" for number in (range(4) if first else range(5, 9))]
    thumbnails |= {series: np.flipud(thumbnails[series]) for series in turned}
    assert [found.series for found in find_turned(thumbnails)] == turned


def test_two_series_have_no_most() -> None:
    thumbnails = chests(2)
    thumbnails["s1"] = np.flipud(thumbnails["s1"])
    assert find_turned(thumbnails) == []


def test_few_series_do_not_tell_left_from_right() -> None:
    thumbnails = chests(5)
    thumbnails["s1"] = np.fliplr(thumbnails["s1"])
    assert find_turned(thumbnails) == []


def test_flat_thumbnails_are_no_series_to_compare() -> None:
    thumbnails = chests(7) | {"flat": np.full((THUMBNAIL_SIDE, THUMBNAIL_SIDE), 7.0)}
    assert find_turned(thumbnails) == []
    assert find_turned(dict.fromkeys("abcdefg", thumbnails["flat"])) == []


def test_flipped_volumes_of_a_public_set_are_found(data_root: Path) -> None:
    folder = data_root / "covid_slices"
    with (folder / "split.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    volumes = defaultdict(list)
    for row in rows[::6]:
        volumes[row["volume"]].append(thumbnail_of(read_picture(folder / "ct" / row["file"])))
    found = find_turned({name: np.mean(members, axis=0) for name, members in volumes.items()})
    # Looked at by eye: the second half of the set has the spine at the top.
    assert {one.series for one in found} == {f"run{number}" for number in (10, 11, 13, 14, 15, 17, 18)}
    assert {one.turn for one in found} == {"mirrored top to bottom"}


NEAR = 150  # of 2,304 bits; leaks are refused up to 360


def phantom_slice(number):
    spec = replace(preset_by_name("mini"), matrix=(256, 256), slice_count=1)
    return build_patient(spec, number).volume.hu[0]


@pytest.fixture(scope="module")
def chest():
    """A slice of a phantom, int16 HU (256, 256), with noise of about 10 HU."""
    return phantom_slice(0)


@pytest.fixture(scope="module")
def other_chest():
    return phantom_slice(1)


@pytest.fixture(scope="module")
def real_chest(data_root):
    """A real slice as the public 8-bit sets hold it, uint8 (256, 256)."""
    return cv2.imread(str(data_root / "covid_slices" / "ct" / "0100.png"), cv2.IMREAD_UNCHANGED)


def words(plane):
    return np.frombuffer(unpack_fingerprint(slice_fingerprint(plane)), np.uint64)[None]


def distance(first, second):
    bits, mirrored = fingerprint_distances(words(first), words(second))
    return int(bits[0]), bool(mirrored[0])


def windowed(plane, center=-600.0, width=1500.0):
    return GreyLevels("window", center, width).apply(plane)


def resized(plane, scale, method=cv2.INTER_AREA):
    return cv2.resize(plane, None, fx=scale, fy=scale, interpolation=method)


def compressed(plane, quality):
    return cv2.imdecode(cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED)


def test_fingerprint_is_of_hexadecimal_digits(chest):
    fingerprint = slice_fingerprint(chest)
    assert len(fingerprint) == FINGERPRINT_BITS // 4 == 576
    assert len(unpack_fingerprint(fingerprint)) == 8 * WORDS


def test_same_slice_has_the_same_fingerprint(chest):
    assert slice_fingerprint(chest) == slice_fingerprint(chest.copy())


@pytest.mark.parametrize(
    "change",
    [
        windowed,
        lambda plane: windowed(plane, -300, 1400),
        lambda plane: compressed(windowed(plane), 50),
        lambda plane: resized(plane, 0.5),
        lambda plane: resized(plane, 2.0, cv2.INTER_CUBIC),
        lambda plane: resized(windowed(plane), 1.37, cv2.INTER_LINEAR),
        lambda plane: plane + np.random.default_rng(0).integers(-20, 21, plane.shape, np.int16),
        lambda plane: np.rint(255 * (windowed(plane) / 255) ** 0.7).astype(np.uint8),
        lambda plane: windowed(plane) // 2 + 20,
    ],
    ids=["8 bits", "wide window", "JPEG", "half", "double", "8 bits, 1.37", "noise", "gamma", "dim"],
)
def test_copy_is_near(chest, change):
    assert distance(chest, change(chest))[0] <= NEAR


@pytest.mark.parametrize(
    "change",
    [
        lambda plane: compressed(plane, 90),
        lambda plane: compressed(plane, 20),
        lambda plane: resized(plane, 0.5),
        lambda plane: resized(plane, 2.0, cv2.INTER_CUBIC),
        lambda plane: np.clip(plane * 0.8 + 30, 0, 255).astype(np.uint8),
    ],
    ids=["JPEG 90", "JPEG 20", "half", "double", "brighter"],
)
def test_copy_of_a_real_slice_is_near(real_chest, change):
    assert distance(real_chest, change(real_chest))[0] <= NEAR


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, lambda plane: plane[::-1, ::-1]], ids=["lr", "ud", "both"])
def test_mirrored_slice_is_near_and_said_to_be_mirrored(chest, turn):
    bits, mirrored = distance(chest, turn(chest))
    assert bits <= 5  # coefficients that are nearly 0
    assert mirrored


def test_mirrored_slice_is_far_where_mirrors_do_not_count(chest):
    bits, mirrored = fingerprint_distances(words(chest), words(np.fliplr(chest)), mirrored=False)
    assert bits[0] > 700
    assert not mirrored[0]


def test_other_patient_is_far(chest, other_chest):
    assert distance(chest, other_chest)[0] > 600


def test_distance_counts_bits():
    first = np.zeros((3, WORDS), np.uint64)
    second = first.copy()
    second[1, 0], second[2, 5] = 0b1011, 2**63
    bits, mirrored = fingerprint_distances(first, second)
    assert bits.tolist() == [0, 3, 1]
    assert not mirrored.any()


def air(size=256, sigma=20.0):
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (size, size)), (0, 0), 1.5)
    return np.rint(-1000 + noise * sigma / noise.std()).astype(np.int16)


def air_with_table(size=256):
    plane = air(size)
    plane[int(0.85 * size) : int(0.87 * size), size // 8 : -size // 8] = -100
    return plane


def circle(size=256):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.where(x**2 + y**2 < (size / 2) ** 2, 60, 0).astype(np.uint8)


@pytest.mark.parametrize(
    "plane",
    [
        np.zeros((64, 64), np.uint8),
        np.full((512, 512), 255, np.uint8),
        np.full((512, 512), -1024, np.int16),
        np.full((512, 512), 40, np.int16),
        air(),
        windowed(air()),
        air_with_table(),
        windowed(air_with_table()),
        circle(),
        np.zeros((1, 1), np.uint8),
    ],
    ids=["black", "white", "air", "tissue", "noise", "8-bit noise", "table", "8-bit table", "field of view", "1 x 1"],
)
def test_slice_without_a_chest_has_no_fingerprint(plane):
    assert slice_fingerprint(plane) == ""


@pytest.mark.parametrize(
    "plane",
    [np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8), np.zeros(4, np.int16)],
)
def test_array_that_is_no_slice_is_refused(plane):
    with pytest.raises(DatasetError, match="expected int16 HU or uint8 grey of two axes"):
        slice_fingerprint(plane)


@pytest.mark.parametrize("text", ["", "xyz", "00ff", "0" * 575, "g" * 576])
def test_text_that_is_no_fingerprint_is_refused(text):
    with pytest.raises(DatasetError, match="expected 576 hexadecimal digits"):
        unpack_fingerprint(text)
