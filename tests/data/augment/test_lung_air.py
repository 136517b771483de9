from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest

from lung_d2.data.augment.lung_air import estimate_lung
from records import AIR_HU, LUNG_HU, TISSUE_HU, draw_chest
from tiny import square

NONE = np.zeros((128, 128), bool)


def shares(found, lungs):
    """Return which share of what was found is lung, and which share of the lung was found."""
    both = np.count_nonzero(found & lungs)
    return both / max(np.count_nonzero(found), 1), both / np.count_nonzero(lungs)


@pytest.mark.parametrize("is_grey", [False, True], ids=["HU", "grey"])
def test_both_lungs_are_found_and_nothing_else(is_grey):
    plane, lungs = draw_chest()
    if is_grey:
        plane = np.clip((plane.astype(np.float32) + 1000) / 8, 0, 255).astype(np.uint8)
    precision, recall = shares(estimate_lung(plane, NONE), lungs)
    assert precision > 0.95
    assert recall > 0.95


def test_annotated_disease_belongs_to_the_lung():
    plane, lungs = draw_chest()
    dense = square(128, 60, 30, 14) & lungs
    plane[dense] = TISSUE_HU
    assert dense.sum() > 100
    assert estimate_lung(plane, dense)[dense].all()
    assert not estimate_lung(plane, NONE)[dense].all()


def test_air_around_the_body_and_a_slice_without_lung_give_none():
    assert not estimate_lung(np.full((128, 128), AIR_HU, np.int16), NONE).any()
    body = np.full((128, 128), AIR_HU, np.int16)
    body[20:100, 20:100] = TISSUE_HU
    assert not estimate_lung(body, NONE).any()


def test_trachea_is_no_lung():
    body = np.full((128, 128), AIR_HU, np.int16)
    body[10:110, 10:110] = TISSUE_HU
    body[30:40, 60:70] = AIR_HU
    body[50:90, 20:50] = LUNG_HU
    found = estimate_lung(body, NONE)
    assert not found[25:45, 55:75].any()
    assert found[52:88, 22:48].all()


def test_lung_of_real_slices_is_mostly_that_of_their_masks(data_root):
    folder = data_root / "covid_slices"
    rows = [row for row in csv.DictReader((folder / "split.csv").open()) if row["split"] == "train"][::40]
    found = []
    for row in rows:
        ct, lungs, lesions = (
            cv2.imread(str(folder / name / row["file"]), cv2.IMREAD_GRAYSCALE) for name in ("ct", "lungs", "covid")
        )
        found.append(shares(estimate_lung(ct, lesions > 0), (lungs > 0) | (lesions > 0)))
    precision, recall = np.mean(found, axis=0)
    assert precision > 0.93
    assert recall > 0.85
