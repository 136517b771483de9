"""What comes how often, on data sets counted by hand; and the stream is the same wherever it begins."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from lung_d2 import load_config
from lung_d2.data.sampler import PositionSampler, build_sampler
from lung_d2.errors import ConfigError
from tiny import CONFIGS

FACTORS = np.array([1.0, 2.5, 0.25, 3.0])


def indices(sampler: PositionSampler, count: int, start: int = 0) -> list[int]:
    sampler.start = start
    return [index for _, _, index in itertools.islice(sampler, count)]


def test_sampler_gives_each_process_its_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lung_d2.data.sampler.comm.get_world_size", lambda: 2)
    positions = []
    for rank in (0, 1):
        monkeypatch.setattr("lung_d2.data.sampler.comm.get_rank", lambda rank=rank: rank)
        positions.append(list(itertools.islice(PositionSampler(5, seed=0), 10)))
    assert [position for _, position, _ in positions[0]] == list(range(0, 20, 2))
    together = [index for _, _, index in sorted(positions[0] + positions[1])]
    assert [sorted(together[start : start + 5]) for start in range(0, 20, 5)] == [[0, 1, 2, 3, 4]] * 4


def test_spawned_worker_knows_the_rank_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lung_d2.data.sampler.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("lung_d2.data.sampler.comm.get_rank", lambda: 1)
    sampler = PositionSampler(5, seed=0)
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(first_positions, (sampler,)) == [1, 3, 5]


def first_positions(sampler: PositionSampler) -> list[int]:
    return [position for _, position, _ in itertools.islice(sampler, 3)]


def test_factors_of_one_change_nothing() -> None:
    assert indices(PositionSampler(5, 3, np.ones(5)), 40) == indices(PositionSampler(5, 3), 40)


@pytest.mark.parametrize("start", [1, 6, 7, 50, 333])
def test_repeated_stream_is_taken_up_anywhere(start: int) -> None:
    whole = indices(PositionSampler(4, 3, FACTORS), start + 30)
    assert indices(PositionSampler(4, 3, FACTORS), 30, start) == whole[start:]


def test_images_come_as_often_as_their_factors_say() -> None:
    epochs = 4000
    counts = Counter(indices(PositionSampler(4, 0, FACTORS), round(epochs * FACTORS.sum())))
    # The standard deviation of a rounded half is sqrt(0.25 * 4000) = 32.
    assert [counts[index] for index in range(4)] == pytest.approx(epochs * FACTORS, abs=130)


def test_whole_factors_make_epochs_of_one_length() -> None:
    stream = indices(PositionSampler(3, 0, np.array([1.0, 2.0, 3.0])), 60)
    epochs = [sorted(stream[start : start + 6]) for start in range(0, 60, 6)]
    assert epochs == [[0, 1, 1, 2, 2, 2]] * 10
    assert stream[:6] != stream[6:12]


def record(*categories: int, crowd: bool = False) -> dict[str, Any]:
    return {"annotations": [{"category_id": category, "iscrowd": int(crowd)} for category in categories]}


# Category 0 shows in 8 of 10 images, category 1 in one; another shows it in an undecided region alone.
PLANTED = {
    "planted_common": [*[record(0)] * 6, record(), record(1, crowd=True)],
    "planted_rare": [record(0, 1), record(0)],
}


@pytest.fixture(scope="module")
def planted() -> Iterator[list[dict[str, Any]]]:
    """Register both data sets; give their records."""
    for name, records in PLANTED.items():
        DatasetCatalog.register(name, partial(list, records))
    yield list(itertools.chain(*PLANTED.values()))
    for name in PLANTED:
        DatasetCatalog.remove(name)


def factors(records: list[dict[str, Any]], sampler: str, *opts: Any) -> list[float]:
    names = ("DATASETS.TRAIN", tuple(PLANTED), "DATALOADER.SAMPLER_TRAIN", sampler)
    cfg = load_config(CONFIGS / "Base-LungCT-RCNN-FPN.yaml", [*names, *opts])
    return build_sampler(cfg, records, 0).repeat_factors.tolist()


WEIGHTS = ("DATASETS.TRAIN_REPEAT_FACTOR", [("planted_rare", 4.0)])
THRESHOLD = ("DATALOADER.REPEAT_THRESHOLD", 0.4)


def test_every_image_counts_once_by_default(planted: list[dict[str, Any]]) -> None:
    assert factors(planted, "TrainingSampler") == [1.0] * 10


def test_rare_category_is_repeated(planted: list[dict[str, Any]]) -> None:
    # Category 1 is in 0.1 of the images, a quarter of the threshold: its image comes sqrt(4) times.
    assert factors(planted, "RepeatFactorTrainingSampler", *THRESHOLD) == pytest.approx([1.0] * 8 + [2.0, 1.0])
    no_root = ("DATALOADER.REPEAT_SQRT", False)
    found = factors(planted, "RepeatFactorTrainingSampler", *THRESHOLD, *no_root)
    assert found == pytest.approx([1.0] * 8 + [4.0, 1.0])


def test_data_sets_are_weighed(planted: list[dict[str, Any]]) -> None:
    assert factors(planted, "WeightedTrainingSampler", *WEIGHTS) == [1.0] * 8 + [4.0] * 2


def test_data_sets_and_categories_are_weighed_together(planted: list[dict[str, Any]]) -> None:
    threshold = ("DATALOADER.REPEAT_THRESHOLD", 1.0)
    # Frequencies count within a data set: category 0 is in 6 of 8 and in 2 of 2, category 1 in 1 of 2 of its own.
    common = [math.sqrt(8 / 6)] * 6 + [1.0, 1.0]
    rare = [4 * math.sqrt(2), 4.0]
    found = factors(planted, "WeightedCategoryTrainingSampler", *WEIGHTS, *threshold)
    assert found == pytest.approx(common + rare)


def test_least_factor_of_weighed_categories_is_one(planted: list[dict[str, Any]]) -> None:
    halved = ("DATASETS.TRAIN_REPEAT_FACTOR", [("planted_common", 0.5)])
    assert factors(planted, "WeightedCategoryTrainingSampler", *halved) == [1.0] * 8 + [2.0] * 2


@pytest.mark.parametrize(
    "wrong", [[("nowhere", 2.0)], [("planted_rare", 0)], [("planted_rare", "much")], ["planted_rare"], [("a", 1, 2)], 2]
)
def test_wrong_factors_are_named(planted: list[dict[str, Any]], wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"TRAIN_REPEAT_FACTOR"):
        factors(planted, "WeightedTrainingSampler", "DATASETS.TRAIN_REPEAT_FACTOR", wrong)


@pytest.mark.parametrize(
    ("key", "opts"),
    [
        ("DATALOADER.SAMPLER_TRAIN", ("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler")),
        ("DATALOADER.REPEAT_THRESHOLD", ("DATALOADER.REPEAT_THRESHOLD", 40.0)),
        ("DATASETS.TRAIN_REPEAT_FACTOR", WEIGHTS),  # which the default sampler would not see
    ],
)
def test_keys_that_would_do_nothing_are_refused(key: str, opts: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match=key):
        load_config(CONFIGS / "Base-LungCT-RCNN-FPN.yaml", opts)
