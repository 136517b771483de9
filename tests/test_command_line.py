from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from lung_d2.command_line import ERROR_STATUS, run_tool
from lung_d2.errors import InputError

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def status_of(main):
    with pytest.raises(SystemExit) as caught:
        run_tool(main)
    return caught.value.code


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (3, 3)])
def test_status_is_what_main_returns(returned, status):
    assert status_of(lambda: returned) == status


def test_error_of_ours_is_one_line_and_status_2(capsys):
    def main():
        raise InputError("a.dcm", found="no pixels", remedy="export it again")

    assert status_of(main) == ERROR_STATUS == 2
    assert capsys.readouterr().err == "error: a.dcm: no pixels; export it again\n"


@pytest.mark.parametrize("bar_is_closed", [False, True])
def test_error_starts_a_line_though_a_progress_bar_was_open(capsys, bar_is_closed):
    def work():
        bar = tqdm(total=3)
        if bar_is_closed:
            bar.close()
        raise InputError("a.dcm", found="no pixels", remedy="export it again")

    assert status_of(lambda: [work() for _ in tqdm(range(2))]) == ERROR_STATUS
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: a.dcm")


def test_path_without_permission_is_one_line_and_status_2(capsys):
    def main():
        raise PermissionError(13, "Permission denied", "a.dcm")

    assert status_of(main) == ERROR_STATUS
    assert capsys.readouterr().err == "error: a.dcm: Permission denied; check its permissions\n"


def test_interrupt_is_status_130():
    def main():
        raise KeyboardInterrupt

    assert status_of(main) == 130


def test_termination_is_status_143_and_closes_what_is_open(capsys):
    closed = []

    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            closed.append(True)

    before = signal.getsignal(signal.SIGTERM)
    assert status_of(main) == 143
    assert closed
    assert signal.getsignal(signal.SIGTERM) == before
    assert capsys.readouterr().err == "terminated\n"


def test_defect_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_tool(main)


@pytest.mark.parametrize(
    ("command", "finding"),
    [
        ("train_net.py --config-file none.yaml", "none.yaml: no such file"),
        ("train_net.py --config-file {base} SOLVER.MAX_ITER", "command line: an odd number of words"),
        ("train_net.py --config-file {base}", "data set lung_ct_train: not prepared"),
        ("prepare_dataset.py dicom none --name x", "none: no such folder"),
        ("recognize.py --config-file {base} --weights none.pth --input none --output out", "none.pth: no such file"),
    ],
    ids=["config", "opts", "dataset", "source", "weights"],
)
def test_tool_says_what_is_wrong_in_its_last_line(tmp_path, command, finding):
    script, *words = command.format(base=TOOLS.parent / "configs" / "Base-LungCT-RCNN-FPN.yaml").split()
    done = subprocess.run(
        [sys.executable, TOOLS / script, *words],
        cwd=tmp_path,
        env={**os.environ, "DETECTRON2_DATASETS": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {finding}")
    assert "Traceback" not in done.stderr
