from __future__ import annotations

import json
from pathlib import Path

import pytest

from lung_d2.errors import ConfigError
from lung_d2.recognition import LabelFiles, RecognitionSettings


def test_settings_are_told_without_paths():
    settings = RecognitionSettings(labels=LabelFiles(lobes=Path("/data/DOE/lobes.nii.gz")))
    told = settings.describe()
    assert told["labels"] == {
        "lung_finder": "lobes", "lungs_given": False, "lobes_given": True, "lobe_values": "auto"
    }  # fmt: skip
    assert told["link"]["min_detection_score"] == 0.5
    assert told["use"] == {"skip_slices": True, "crop": None, "drop_outside": True}
    assert "DOE" not in json.dumps(told)


def test_unknown_lobe_values_are_refused():
    with pytest.raises(ConfigError, match="lobe_values: itk; expected auto or lungmask or totalsegmentator"):
        LabelFiles(lobe_values="itk")


@pytest.mark.parametrize(
    ("lungs", "finder"),
    [
        (None, "builtin"),
        ("builtin", "builtin"),
        ("lungmask", "lungmask"),
        (Path("DOE.nii"), "label volume"),
    ],
)
def test_settings_say_who_finds_the_lungs(lungs, finder):
    assert RecognitionSettings(labels=LabelFiles(lungs)).describe()["labels"]["lung_finder"] == finder


def test_unknown_finder_is_refused():
    with pytest.raises(ConfigError, match="lungs: itk; expected builtin or lungmask"):
        LabelFiles(lungs="itk")
