from __future__ import annotations

import errno
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.errors import OutputError
from tiny import TINY_OPTS, write_tiny_dataset

TOOLS = Path(__file__).resolve().parents[2] / "tools"
THIRD_COLOR = (10, 200, 30)
CONFIG = TOOLS.parent / "configs" / "Base-LungCT-RCNN-FPN.yaml"


def run(tool, root, *arguments):
    opts = [str(value) for value in (*TINY_OPTS, "DATASETS.TRAIN", "('tiny_train',)", "INPUT.CT.HU_JITTER", 0.0)]
    command = [sys.executable, str(TOOLS / tool), "--config-file", str(CONFIG), *arguments, *opts]
    environment = {"DETECTRON2_DATASETS": str(root), "PATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=TOOLS.parent)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_tiny_dataset(folder)
    file = folder / "lung_ct" / "tiny" / "annotations" / "train.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["categories"].append({"id": 3, "name": "consolidation", "color": THIRD_COLOR})
    for annotation in content["annotations"][::3]:
        annotation["category_id"] = 3
    file.write_text(json.dumps(content), encoding="utf-8")
    return folder


def has_color(picture, color):
    return bool((np.abs(picture.astype(int) - np.array(color)).max(axis=-1) <= 2).any())


def test_sheet_shows_the_lesions_of_every_category_of_the_data_set(root, tmp_path):
    result = run("visualize_data.py", root, "--output", str(tmp_path / "new" / "sheet.png"), "--count", "4")
    assert result.returncode == 0, result.stderr
    assert "not writable" not in result.stderr
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]
    picture = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    assert all(has_color(picture, color) for color in (GROUND_GLASS_OPACITY.color, BRONCHIECTASIS.color, THIRD_COLOR))


def test_sheet_is_the_same_for_the_same_seed_only(root, tmp_path):
    pictures = []
    for number, seed in enumerate("113"):
        output = tmp_path / f"{number}.png"
        assert run("visualize_data.py", root, "--output", str(output), "--seed", seed).returncode == 0
        pictures.append(output.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--output", "sheet.jpg"), "sheet.jpg: no .png"),
        (("--output", "sheet.png", "--dataset", "none_train"), "data set none_train: not prepared"),
        (("--output", "sheet.png", "--count", "0"), "--count"),
        (("--output", "{folder}/old.png"), "old.png: a folder; expected a picture to write"),
        (("--output", "{folder}/" + "x" * 300 + ".png"), "cannot be written (File name too long)"),
    ],
)
def test_wrong_arguments_end_in_one_line(root, tmp_path, arguments, said):
    (tmp_path / "old.png").mkdir()
    result = run("visualize_data.py", root, *(word.format(folder=tmp_path) for word in arguments))
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert said in result.stderr.splitlines()[-1]


def test_full_disk_ends_in_one_line_and_leaves_the_old_picture(tmp_path, monkeypatch):
    tool = runpy.run_path(str(TOOLS / "visualize_data.py"))
    (tmp_path / "sheet.png").write_bytes(b"old")

    def fill_up(self, file, **options):
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", fill_up)
    with pytest.raises(OutputError, match=r"sheet\.png: cannot be written \(No space left on device\)"):
        tool["save_picture"](np.zeros((4, 4, 3), np.uint8), tmp_path / "sheet.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
