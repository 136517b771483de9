"""A third category, end to end through the tools alone: prepared, trained, evaluated, recognised, in every output."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from tiny import CONFIGS, TINY_OPTS

ROOT = Path(__file__).resolve().parents[1]
DEFINITION = "3=consolidation,code=95436008|SCT|Lung consolidation,color=#CC79A7,short=CON"


def run(folder: Path, tool: str, *words: object) -> str:
    environment = os.environ | {"DETECTRON2_DATASETS": str(folder / "datasets"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "tools" / tool, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def write_cases(folder: Path) -> None:
    """Write phantom patients whose label map holds the two defaults as 1 and 2, and a block of soft tissue as 3."""
    run(folder, "make_phantom.py", "--preset", "mini", "--out", folder / "cohort")
    for case in sorted(path for path in (folder / "cohort").iterdir() if path.is_dir()):
        labels, affine = None, None
        for value, name in ((1, "ground_glass_opacity"), (2, "bronchiectasis")):
            (path,) = (case / "masks").glob(f"{name}.nii.gz")
            image = nibabel.load(path)
            labels = np.zeros(image.shape, np.uint8) if labels is None else labels
            labels[np.asarray(image.dataobj) > 0] = value
            affine = image.affine
            path.unlink()
        assert labels is not None
        middle = tuple(side // 2 for side in labels.shape)
        labels[middle[0] - 8 : middle[0] + 8, middle[1] - 8 : middle[1] + 8, middle[2] - 2 : middle[2] + 2] = 3
        nibabel.save(nibabel.Nifti1Image(labels, affine), case / "labels.nii.gz")


@pytest.mark.slow
def test_third_category_needs_no_line_of_code(tmp_path: Path) -> None:
    write_cases(tmp_path)
    labels = ("--label", "1=ground_glass_opacity", "--label", "2=bronchiectasis", "--label", DEFINITION)
    run(tmp_path, "prepare_dataset.py", "dicom", tmp_path / "cohort", "--name", "three", *labels)
    split = json.loads((tmp_path / "datasets/lung_ct/three/annotations/train.json").read_text())
    assert [record["name"] for record in split["categories"]][2] == "consolidation"

    output = tmp_path / "output"
    opts = [*TINY_OPTS, *("DATASETS.TRAIN", "('three_train',)", "DATASETS.TEST", "('three_val',)")]
    opts += ["OUTPUT_DIR", output, "SOLVER.MAX_ITER", 20, "SOLVER.WARMUP_ITERS", 1]
    run(tmp_path, "train_net.py", "--config-file", CONFIGS / "Base-LungCT-RCNN-FPN.yaml", *opts)
    results = json.loads((output / "inference/three_val/results.json").read_text())
    assert "AP50-consolidation" in results["segm"]
    assert "consolidation" in (output / "inference/three_val/evaluation.html").read_text()

    weights = tmp_path / "three.safetensors"
    model = ("--config-file", output / "config.yaml", "--weights", output / "model_final.pth")
    run(tmp_path, "export_weights.py", *model, "--output", weights)
    series = next(iter(sorted((tmp_path / "cohort").glob("*/ct"))))
    found = tmp_path / "found"
    run(tmp_path, "recognize.py", "--weights", weights, "--input", series, "--output", found, "--score-threshold", 0.0)
    (result,) = (path for path in found.iterdir() if path.is_dir())
    findings = json.loads((result / "findings.json").read_text())
    assert {lesion["category"] for lesion in findings["lesions"]} >= {"consolidation"}
    with (result / "lesions.csv").open() as table:
        assert "consolidation" in {row["category"] for row in csv.DictReader(table)}
    assert "consolidation" in (result / "report.html").read_text().lower()
    segmentation = pydicom.dcmread(result / "segmentation_consolidation.dcm")
    code = segmentation.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) == ("95436008", "SCT", "Lung consolidation")
