"""The queue survives kills, runs one job at a time, and does nothing twice."""

from __future__ import annotations

import os
import signal
import time

import pytest

from client.parts import quick_job
from lung_d2.client.jobs import CANCELLED, DONE, FAILED, QUEUED, RUNNING, Jobs, QueueFullError, replace_paths
from lung_d2.client.store import Store
from lung_d2.errors import InputError, LungD2Error
from recognition.chests import write_chest


@pytest.fixture(scope="module")
def recognition(tmp_path_factory):
    return quick_job(tmp_path_factory.mktemp("jobs"))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def add_chest(store, tmp_path, number=1):
    uids = {"SeriesInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": f"1.2.9.{number}"}
    return store.add(write_chest(tmp_path / f"chest{number}", **uids)).series[0]


def wait(jobs, number, *states, seconds=240.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job = jobs.get(number)
        if job.state in states:
            return job
        time.sleep(0.05)
    raise TimeoutError(job)


def wait_until(done, seconds=60.0):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def start(store, recognition, **more):
    jobs = Jobs(store, recognition, "model", **more)
    jobs.start()
    return jobs


def test_series_is_recognised_once_and_its_objects_join_the_study(store, recognition, tmp_path):
    series, told = add_chest(store, tmp_path), []
    jobs = start(store, recognition, on_done=told.append)
    job = jobs.add(series)
    done = wait(jobs, job.id, DONE, FAILED)
    assert done.error == ""
    assert done.done == done.total > 0
    assert (jobs.result_of(done) / "findings.json").is_file()
    assert "SR" in {row["modality"] for row in store.find(study=done.study)}
    assert jobs.add(series).id == job.id
    assert [one.id for one in told] == [job.id]
    jobs.stop()


def test_process_that_is_killed_fails_its_job_alone(store, recognition, tmp_path):
    first, second = add_chest(store, tmp_path, 1), add_chest(store, tmp_path, 2)
    jobs = start(store, recognition)
    job = jobs.add(first)
    wait(jobs, job.id, RUNNING)
    wait_until(lambda: getattr(jobs._worker._process, "pid", None))
    os.kill(jobs._worker._process.pid, signal.SIGKILL)
    assert "process died" in wait(jobs, job.id, FAILED).error
    assert wait(jobs, jobs.add(second).id, DONE, FAILED).state == DONE
    jobs.stop()


def test_job_that_a_kill_of_the_service_interrupted_is_run_again(store, recognition, tmp_path):
    series = add_chest(store, tmp_path)
    jobs = Jobs(store, recognition, "model")
    number = jobs.add(series).id
    jobs._set(number, QUEUED, state=RUNNING, done=3)  # as a process that was killed leaves it
    again = start(store, recognition)
    assert wait(again, number, DONE, FAILED).state == DONE
    assert len(again.list(series)) == 1
    again.stop()


def test_running_job_is_cancelled(store, recognition, tmp_path):
    series = add_chest(store, tmp_path)
    jobs = start(store, recognition)
    number = jobs.add(series).id
    wait(jobs, number, RUNNING)
    assert jobs.cancel(number).state == CANCELLED
    assert wait(jobs, jobs.add(series).id, DONE, FAILED).state == DONE
    assert jobs.get(number).state == CANCELLED
    jobs.stop()


def test_removed_study_leaves_nothing(store, recognition, tmp_path):
    series = add_chest(store, tmp_path)
    jobs = start(store, recognition)
    done = wait(jobs, jobs.add(series).id, DONE, FAILED)
    folder = jobs.result_of(done)
    jobs.remove_study(done.study)
    assert not folder.exists()
    assert (jobs.list(), store.list_series()) == ([], [])
    jobs.stop()


def test_queue_is_bounded(store, recognition, tmp_path):
    jobs = Jobs(store, recognition, "model", most=2)
    for number in (1, 2):
        jobs.add(add_chest(store, tmp_path, number))
    third = add_chest(store, tmp_path, 3)
    with pytest.raises(QueueFullError, match="2 jobs wait"):
        jobs.add(third)
    jobs.cancel(1)
    assert jobs.add(third).state == QUEUED


def test_series_that_has_grown_is_done_again(store, recognition, tmp_path):
    paths = write_chest(tmp_path / "chest")
    series = store.add(paths[:-1]).series[0]
    jobs = Jobs(store, recognition, "model")
    first = jobs.add(series)
    store.add(paths[-1:])
    assert jobs.add(series).id != first.id


def test_unknown_series_is_refused(store, recognition):
    with pytest.raises(LungD2Error, match="no such CT series"):
        Jobs(store, recognition, "model").add("1.2.3")


def test_errors_name_no_path(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    error = replace_paths(InputError(str(paths[1]), found="a", expected="b", remedy="c"), paths)
    assert str(error).startswith("file 2 of the series: ")
    assert str(tmp_path) not in str(error)
