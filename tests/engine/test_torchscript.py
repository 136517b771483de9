"""The TorchScript file finds what the model finds, says what it takes, and runs without Detectron2."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine.test_predictor import tiny_weights
from lung_d2.engine import CTPredictor
from lung_d2.engine.torchscript import CONFIG_NAME, FACTS_NAME, OUTPUTS, export_torchscript
from tiny import write_tiny_dataset

TOOL = Path(__file__).resolve().parents[2] / "tools" / "export_torchscript.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Give the config of a tiny model, and its file."""
    folder = tmp_path_factory.mktemp("torchscript")
    write_tiny_dataset(folder)
    cfg = tiny_weights(folder, folder)
    return cfg, export_torchscript(cfg, folder / "NAME.ts")


@pytest.mark.parametrize("shape", [(3, 96, 96), (3, 96, 128), (3, 64, 160)])
def test_it_finds_what_the_model_finds(exported: tuple[Any, Path], shape: tuple[int, ...]) -> None:
    cfg, path = exported
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = CTPredictor(cfg).model.inference([{"image": pixels}], do_postprocess=False)[0]
        found = dict(zip(OUTPUTS, torch.jit.load(str(path))(pixels), strict=True))
    assert len(expected) == len(found["scores"]) > 0
    order, others = (scores.argsort(descending=True, stable=True) for scores in (expected.scores, found["scores"]))
    assert torch.allclose(expected.pred_boxes.tensor[order], found["boxes"][others], atol=1e-2)
    assert torch.equal(expected.pred_classes[order], found["classes"][others])
    one, other = expected.pred_masks[order] > 0.5, found["masks"][others] > 0.5
    assert (one & other).sum() >= 0.99 * (one | other).sum()
    assert found["image_size"].tolist() == list(shape[1:])


def test_it_says_what_it_takes(exported: tuple[Any, Path]) -> None:
    cfg, path = exported
    extra = {CONFIG_NAME: "", FACTS_NAME: ""}
    torch.jit.load(str(path), _extra_files=extra)
    facts = json.loads(extra[FACTS_NAME])
    assert [category["name"] for category in facts["categories"]] == ["ground_glass_opacity", "bronchiectasis"]
    assert facts["pixel_mean"] == list(cfg.MODEL.PIXEL_MEAN)
    assert facts["pixel_std"] == list(cfg.MODEL.PIXEL_STD)
    assert facts["grey_levels"]["kind"] == cfg.INPUT.CT.GREY
    assert b"NUM_CLASSES: 2" in (text if isinstance(text := extra[CONFIG_NAME], bytes) else text.encode())


def test_script_of_the_tool_runs_it_without_detectron2(exported: tuple[Any, Path]) -> None:
    _, path = exported
    shown = TOOL.read_text("utf-8").partition("::\n")[2].partition('"""')[0]
    script = "import sys\nsys.modules['detectron2'] = sys.modules['lung_d2'] = None\n" + textwrap.dedent(shown)
    noise = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    cv2.imwrite(str(path.parent / "image.png"), np.repeat(noise[..., None], 3, axis=2))
    done = subprocess.run([sys.executable, "-c", script], cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[0] in ("ground_glass_opacity", "bronchiectasis")
