"""Worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import cv2
import pytest

from lung_d2 import processes
from lung_d2.processes import ignore_deprecations, open_pool
from watching import is_alive, wait_for

RUN = """
import sys
from pathlib import Path
from lung_d2.processes import open_pool
from test_processes import work

if __name__ == "__main__":
    with open_pool(1) as pool:
        pool.submit(work, Path(sys.argv[1]), 600).result()
"""


def work(folder, seconds=0.0):
    """Leave a file that names this process."""
    (folder / f"begun-{os.getpid()}").touch()
    time.sleep(seconds)


def names_of_begun(folder):
    return [path.name for path in folder.glob("begun-*")]


def show_threads(folder):
    (folder / "ready").write_text(str(cv2.getNumThreads()))


def read_ready(folder):
    return (folder / "ready").read_text()


def test_worker_is_set_up_before_its_first_job(tmp_path):
    with open_pool(1, 3, partial(show_threads, tmp_path)) as pool:
        assert pool.submit(read_ready, tmp_path).result() == "3"


def test_worker_watches_its_parent_before_all_else(monkeypatch):
    watched = threading.Event()
    monkeypatch.setattr(processes, "_end_with", lambda parent: watched.set())
    threads = cv2.getNumThreads()

    def set_up():
        raise ImportError

    with pytest.raises(ImportError):
        processes._start_worker(None, threads, set_up)
    assert watched.wait(5)


@pytest.mark.parametrize(("seconds", "end_on_error", "least", "most"), [(600, True, 0, 0), (2, False, 1, 3)])
def test_error_begins_no_further_job_and_ends_those_that_run_where_it_should(
    tmp_path, seconds, end_on_error, least, most
):
    """Of nine jobs one runs, and two at most lie beside it to be taken."""

    def leave_by_an_error():
        with open_pool(1, end_on_error=end_on_error) as pool:
            jobs = [pool.submit(work, tmp_path, seconds) for _ in range(9)]
            wait_for(lambda: names_of_begun(tmp_path))
            raise ZeroDivisionError(jobs)

    with pytest.raises(ZeroDivisionError) as caught:
        leave_by_an_error()
    (jobs,) = caught.value.args
    assert least <= sum(not job.cancelled() and job.exception() is None for job in jobs) <= most


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_workers_end_when_their_parent_was_killed(tmp_path):
    (tmp_path / "run.py").write_text(RUN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, tmp_path / "run.py", tmp_path]
    parent = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    (name,) = wait_for(lambda: names_of_begun(tmp_path))
    worker = int(name.split("-")[1])
    parent.send_signal(signal.SIGKILL)
    parent.wait(30)
    assert wait_for(lambda: not is_alive(worker))


def test_deprecations_of_torch_are_ignored_and_nothing_else():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ignore_deprecations()
        warnings.warn("`torch.jit.script` is deprecated. Use torch.compile.", FutureWarning, stacklevel=1)
        warnings.warn("torch.meshgrid: in an upcoming release, it will be required", UserWarning, stacklevel=1)
        warnings.warn("the file is damaged", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["the file is damaged"]
