"""The weights that come with the package: small, pinned, told of in the README, and good for what that says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lung_d2 import read_volume, slice_image
from lung_d2.categories import CATEGORIES
from lung_d2.ct.volume import CTVolume
from lung_d2.engine import CTPredictor
from lung_d2.engine.weights import config_of
from lung_d2.engine.weights_file import read_weights_file
from lung_d2.engine.weights_names import SHIPPED_FOLDER, SUFFIX, check_digest

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in SHIPPED_FOLDER.glob(f"*{SUFFIX}"))
MOST_BYTES = 90_000_000


def test_there_are_some():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
class TestShipped:
    def test_file_is_small_and_pinned(self, name):
        path = SHIPPED_FOLDER / f"{name}{SUFFIX}"
        assert path.stat().st_size <= MOST_BYTES
        assert f"{check_digest(path)}  {path.name}" in (SHIPPED_FOLDER / "SHA256SUMS").read_text().splitlines()

    def test_readme_and_file_say_where_it_is_from(self, name):
        assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
        provenance = read_weights_file(SHIPPED_FOLDER / f"{name}{SUFFIX}").provenance
        assert {"licence", "notes", "data", "iterations", "start_licence"} <= provenance.keys()

    def test_categories_are_ours(self, name):
        assert len(CATEGORIES) == config_of(name).MODEL.ROI_HEADS.NUM_CLASSES

    def test_evident_opacities_are_told_from_a_clean_lung(self, name, data_root):
        """Seven slices with evident opacities, and every eleventh slice of a CT without lesions."""
        predictor = CTPredictor.from_weights(name, ["MODEL.DEVICE", "cpu"])
        sick, clean = (read_volume(data_root / "ct_series" / case) for case in ("ggo_case", "normal_case"))
        found = [_is_found(predictor, sick, index) for index in (47, 53, 59, 74, 87, 99, 111)]
        false = [_is_found(predictor, clean, index) for index in range(0, len(clean.hu), 11)]
        assert all(found)
        assert sum(false) <= len(false) // 5


def _is_found(predictor: CTPredictor, volume: CTVolume, index: int) -> bool:
    image = slice_image(volume, index, grey=predictor.grey, channels=predictor.channels)
    return bool(len(predictor.predict_image(image, index).above(0.85)))
