"""The weights that come with the package: small, pinned, told of in the README, and good for what that says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lung_d2 import read_volume, slice_image
from lung_d2.categories import CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.ct.volume import CTVolume
from lung_d2.engine import CTPredictor
from lung_d2.engine.weights import config_of
from lung_d2.engine.weights.file import read_weights_file
from lung_d2.engine.weights.names import SHIPPED_FOLDER, SUFFIX, check_digest

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

    def test_model_zoo_and_file_say_where_it_is_from(self, name):
        assert f"`{name}`" in (ROOT / "configs" / "README.md").read_text("utf-8")
        provenance = read_weights_file(SHIPPED_FOLDER / f"{name}{SUFFIX}").provenance
        assert all(
            provenance[key] for key in ("licence", "notes", "data", "iterations", "start_licence", "evaluations")
        )

    def test_model_zoo_tells_what_was_measured(self, name):
        provenance = read_weights_file(SHIPPED_FOLDER / f"{name}{SUFFIX}").provenance
        zoo, told = ((ROOT / folder / "README.md").read_text("utf-8") for folder in ("configs", "lung_d2/weights"))
        row = next(line for line in zoo.splitlines() if f"`{name}`" in line)
        found = [
            one for each in provenance["evaluations"] for one in each["figures"] if one["figure"] == "Mask AP50, %"
        ]
        assert any(f"{one['value']:.1f} [{one['low']:.1f}, {one['high']:.1f}]" in row for one in found)
        assert f"{next(one['patients'] for one in provenance['data'])} patients" in told

    def test_categories_are_ours(self, name, caplog):
        caplog.set_level("INFO")
        assert len(CATEGORIES) == config_of(name, ["MODEL.DEVICE", "cpu"]).MODEL.ROI_HEADS.NUM_CLASSES
        assert [record.message for record in caplog.records] == ["device: cpu"]

    def test_evident_opacities_are_told_from_a_clean_lung(self, name, data_root):
        """Four slices with evident opacities against every 22nd slice of a CT without lesions, table and all."""
        predictor = CTPredictor.from_weights(name, ["MODEL.DEVICE", "cpu"])
        sick, clean = (read_volume(data_root / "ct_series" / case) for case in ("ggo_case", "normal_case"))
        found = [_highest(predictor, sick, index) for index in (47, 59, 87, 111)]
        false = [_highest(predictor, clean, index) for index in range(0, len(clean.hu), 22)]
        assert min(found) >= 0.5
        assert np.mean([one > other for one in found for other in false]) >= 0.9  # the area under the ROC curve


def _highest(predictor: CTPredictor, volume: CTVolume, index: int) -> float:
    """Return the highest score of an opacity on a slice."""
    image = slice_image(volume, index, grey=predictor.grey, channels=predictor.channels)
    found = predictor.predict_image(image, index)
    return max(found.scores[found.category_ids == GROUND_GLASS_OPACITY.coco_id], default=0.0)
