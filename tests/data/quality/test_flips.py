"""Series that lie otherwise than most, planted among chests drawn by hand and real ones."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lung_d2.data.cases import AnnotatedSlice
from lung_d2.data.planes import read_picture
from lung_d2.data.quality.facts import THUMBNAIL_SIDE, measure_slice
from lung_d2.data.quality.flips import find_turned
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
