from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.dataset import write_dataset
from lung_d2.data.pixel_stats import measure_pixel_stats
from lung_d2.errors import DatasetError
from tiny import square, tiny_config

SIDE = 128
AIR, TISSUE, LUNG = -1000, 0, -850
# Window -600 / 1500: HU -1350 is 0 and 150 is 255.
TISSUE_GREY, LUNG_GREY = (0 + 1350) / 1500 * 255, (-850 + 1350) / 1500 * 255


def chest():
    """A body of 100 x 100 mm with a lung of 40 x 40 in air."""
    plane = np.full((SIDE, SIDE), AIR, np.int16)
    plane[14:114, 14:114] = TISSUE
    plane[40:80, 40:80] = LUNG
    return plane


def records(root, planes):
    slices = [AnnotatedSlice(plane, (), index, (1.0, 1.0), float(index)) for index, plane in enumerate(planes)]
    case = Case("case", "p", "s", partial(tuple, slices), contiguous=True)
    write_dataset(root, "stats", [case], {"p": "train"})
    cfg = tiny_config(root, root, "INPUT.CT.HU_JITTER", 500.0, name="stats")
    return cfg, DatasetCatalog.get("stats_train")


def test_air_around_the_body_does_not_count_and_air_in_it_does(tmp_path):
    cfg, found = records(tmp_path, [chest()])
    stats = measure_pixel_stats(cfg, found)
    lung = 40 * 40 / (100 * 100)
    mean = lung * LUNG_GREY + (1 - lung) * TISSUE_GREY
    std = (lung * (LUNG_GREY - mean) ** 2 + (1 - lung) * (TISSUE_GREY - mean) ** 2) ** 0.5
    assert stats.mean == pytest.approx([mean] * 3, abs=2)
    assert stats.std == pytest.approx([std] * 3, abs=2)
    assert stats.body_share == pytest.approx(100 * 100 / SIDE**2, abs=0.02)


def test_slices_without_a_body_are_left_out(tmp_path):
    cfg, found = records(tmp_path, [chest(), np.full((SIDE, SIDE), AIR, np.int16)])
    assert measure_pixel_stats(cfg, found).slices == 1


def test_neighbours_are_measured_in_their_channels(tmp_path):
    brighter = chest()
    brighter[brighter == TISSUE] += 100
    cfg, found = records(tmp_path, [chest(), brighter])
    cfg.INPUT.CT.CHANNELS = "neighbours"
    first = measure_pixel_stats(cfg, found[:1])
    assert first.mean[0] == first.mean[1]
    assert first.mean[2] > first.mean[1] + 10


def test_pictures_without_hu_are_measured_too(tmp_path):
    grey = np.clip((chest().astype(np.float64) + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
    cfg, found = records(tmp_path, [cv2.GaussianBlur(grey, (3, 3), 0)])
    cfg.INPUT.CT.GREY = "minmax_clahe"
    assert 0.5 < measure_pixel_stats(cfg, found).body_share < 0.7


def test_no_body_at_all_is_refused(tmp_path):
    cfg, found = records(tmp_path, [np.full((SIDE, SIDE), AIR, np.int16)])
    with pytest.raises(DatasetError, match="no body on any slice"):
        measure_pixel_stats(cfg, found)


def test_lesions_do_not_matter(tmp_path):
    item = AnnotatedSlice(chest(), ((GROUND_GLASS_OPACITY, square(SIDE, 50, 50, 10)),), 0, (1.0, 1.0), 0.0)
    write_dataset(
        tmp_path / "a", "with", [Case("c", "p", "s", partial(tuple, [item]), contiguous=True)], {"p": "train"}
    )
    cfg = tiny_config(tmp_path / "a", tmp_path, name="with")
    plain, found = records(tmp_path / "b", [chest()])
    assert measure_pixel_stats(cfg, DatasetCatalog.get("with_train")) == measure_pixel_stats(plain, found)
