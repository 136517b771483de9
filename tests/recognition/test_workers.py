"""Series in worker processes, and the same job on a Ray cluster of two nodes, which run on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import pytest

from lung_d2.errors import CheckpointError, ConfigError, DependencyError
from lung_d2.recognition.sources import find_inputs
from lung_d2.recognition.summary import DONE, FAILED, Row
from lung_d2.recognition.workers import count_workers, run_in_processes, run_on_ray
from recognition.chests import write_chest
from recognition.stand_in_jobs import ReadingJob, StandInJob, sources
from watching import is_alive, wait_for


def outcomes(tmp_path, *names, workers=1):
    return {source.name: found for source, found in run_in_processes(StandInJob(tmp_path), sources(*names), workers)}


def test_every_series_has_an_outcome_and_a_defect_stops_none(tmp_path):
    found = outcomes(tmp_path, "a", "defect", "b", workers=2)
    assert {name for name, one in found.items() if isinstance(one, Row) and one.status == DONE} == {"a", "b"}
    assert isinstance(found["defect"], ZeroDivisionError)
    processes = {path.name.split("-")[1] for path in tmp_path.iterdir()}
    assert str(os.getpid()) not in processes


@pytest.mark.parametrize(("workers", "shown"), [(1, 1), (2, 0)])
def test_bars_are_shown_by_a_single_worker_only(tmp_path, workers, shown):
    outcomes(tmp_path, "bar", workers=workers)
    assert len(list(tmp_path.glob("bar-*-shown"))) == shown


def test_process_that_dies_takes_no_other_series_with_it(tmp_path, caplog):
    found = outcomes(tmp_path, "a", "die", "b")
    assert {name for name, one in found.items() if isinstance(one, Row)} == {"a", "b"}
    assert isinstance(found["die"], BrokenProcessPool)
    assert "a worker process died: 2 series are run again, one by one" in caplog.text


@pytest.mark.parametrize(("broken", "found"), [("no such file", "no such file"), ("die", "a worker process died")])
def test_model_that_cannot_be_loaded_is_said_once(tmp_path, broken, found):
    with pytest.raises(CheckpointError, match=found):
        list(run_in_processes(StandInJob(tmp_path, broken=broken), sources("a", "b"), 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("device", "series", "workers"), [("cuda", 9, 1), ("cpu", 1, 1)])
def test_gpu_and_single_series_have_one_worker(device, series, workers):
    assert count_workers(device, series) == workers


def test_workers_go_by_cores(monkeypatch):
    monkeypatch.setattr("lung_d2.recognition.workers.count_cores", lambda: 16)
    monkeypatch.setattr("lung_d2.recognition.workers.GIB_PER_WORKER", 0.001)
    assert count_workers("cpu", 100) == 4
    assert count_workers("cpu", 3) == 3


def test_workers_go_by_memory(monkeypatch):
    monkeypatch.setattr("lung_d2.recognition.workers.count_cores", lambda: 1000)
    monkeypatch.setattr("lung_d2.recognition.workers.GIB_PER_WORKER", 1e6)
    assert count_workers("cpu", 100) == 1


RUN = """
import sys
from pathlib import Path
from lung_d2.recognition.workers import run_in_processes
from recognition.stand_in_jobs import StandInJob, sources

if __name__ == "__main__":
    list(run_in_processes(StandInJob(Path(sys.argv[1])), sources("wait"), 1))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path: Path, number: int) -> None:
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "out").mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, tmp_path / "run.py", tmp_path / "out"]
    # A shell that runs the tests in the background has SIGINT ignored, and its children inherit that.
    parent = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    worker = int(wait_for(lambda: next((tmp_path / "out").iterdir(), None)).name.split("-")[1])
    parent.send_signal(number)
    parent.wait(30)
    wait_for(lambda: not is_alive(worker))


def test_missing_ray_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = StandInJob(tmp_path)
    with pytest.raises(DependencyError, match=r"ray: not installed; .*pip install 'lung_d2\[ray\]'"):
        list(run_on_ray(job, [], "auto"))


@pytest.fixture(scope="module")
def cluster():
    """Give a cluster whose two nodes have room for one task each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:  # so that the nodes' workers find the stand-in jobs
        environment.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        yield cluster
        cluster.shutdown()


@pytest.mark.slow
def test_both_nodes_read_series(cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_chest(tmp_path / "tree" / str(number), SeriesInstanceUID=f"1.2.{number}")
    (tmp_path / "tree" / "2" / "005.dcm").unlink()  # a gap
    (tmp_path / "out").mkdir()
    (tmp_path / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)  # relative paths are those of this process
    inputs = find_inputs([Path("tree")])
    job = ReadingJob(Path("out"))
    found = {source.series_instance_uid: row for source, row in run_on_ray(job, inputs.series, cluster.address)}
    assert {uid: row.status for uid, row in found.items()} == {
        "1.2.0": DONE, "1.2.1": DONE, "1.2.2": FAILED, "1.2.3": DONE
    }  # fmt: skip
    assert "gap" in found["1.2.2"].found
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        row.series_hash for row in found.values() if row.status == DONE
    }
    with pytest.raises(CheckpointError, match=r"model\.pth: no such file"):
        list(run_on_ray(replace(job, broken="no such file"), [], cluster.address))


@pytest.mark.slow
def test_cluster_that_does_not_answer_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    job = StandInJob(tmp_path)
    with pytest.raises(ConfigError, match=r"ray 127\.0\.0\.1:1: no cluster answers"):
        list(run_on_ray(job, [], "127.0.0.1:1"))
