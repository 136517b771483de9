from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lung_d2.data.importing import import_cases, read_records
from lung_d2.errors import DatasetError
from tiny import tiny_cases
from watching import is_alive, wait_for

IMPORT_AND_SLEEP = """
import sys, time
from dataclasses import replace
from pathlib import Path
from data.test_importing import sleepy
from lung_d2.data.importing import import_cases
from tiny import tiny_cases

if __name__ == "__main__":
    cases = [replace(case, load=sleepy) for case in tiny_cases(patients=2)]
    import_cases(cases, Path(sys.argv[1]), workers=2)
"""


def sleepy():
    (Path(os.environ["PIDS"]) / str(os.getpid())).touch()
    time.sleep(60)
    yield


def test_records_may_be_read_without_their_masks(tmp_path):
    (case,) = tiny_cases(patients=1)
    import_cases([case], tmp_path, workers=1)
    light, full = read_records(case, tmp_path, with_masks=False), read_records(case, tmp_path)
    assert all("segmentation" not in one for record in light for one in record["annotations"])
    assert [len(record["annotations"]) for record in light] == [len(record["annotations"]) for record in full]
    assert full[1]["annotations"][0]["segmentation"]["size"] == [64, 64]


def test_case_of_another_record_version_is_imported_again(tmp_path, monkeypatch):
    (case,) = tiny_cases(patients=1)
    import_cases([case], tmp_path, workers=1)
    (path,) = (tmp_path / "cases").iterdir()
    path.write_text(json.dumps([]))
    import_cases([case], tmp_path, workers=1)
    assert read_records(case, tmp_path) == []
    monkeypatch.setattr("lung_d2.data.importing.RECORD_VERSION", -1)
    import_cases([case], tmp_path, workers=1)
    assert len(read_records(case, tmp_path)) == 4


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_workers_end_when_their_parent_was_killed(tmp_path):
    script, pids = tmp_path / "script.py", tmp_path / "pids"
    script.write_text(IMPORT_AND_SLEEP)
    pids.mkdir()
    tests = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PIDS": str(pids), "PYTHONPATH": path}
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: len(list(pids.iterdir())) == 2)
        workers = [int(path.name) for path in pids.iterdir()]
        assert all(map(is_alive, workers))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_for(lambda: not any(map(is_alive, workers)))


def load_and_die():
    os.kill(os.getpid(), signal.SIGKILL)
    yield


def test_worker_that_was_killed_is_one_of_our_errors(tmp_path):
    cases = [replace(case, load=load_and_die) for case in tiny_cases(patients=3)]
    with pytest.raises(DatasetError, match=r"a worker process was ended.*fewer --workers"):
        import_cases(cases, tmp_path, workers=2)


def test_options_of_partials_are_told_apart(tmp_path):
    (case,) = tiny_cases(patients=1)
    (other,) = tiny_cases(patients=1, seed=1)
    assert isinstance(case.load, partial)
    import_cases([case], tmp_path, workers=1)
    import_cases([other], tmp_path, workers=1)
    assert len(list((tmp_path / "cases").iterdir())) == 1  # the images are those of the last
