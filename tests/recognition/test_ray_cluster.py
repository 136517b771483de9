"""The same job on a Ray cluster of two nodes; both run on this machine, as processes apart."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lung_d2.errors import CheckpointError, ConfigError, DependencyError
from lung_d2.recognition.job import ModelChoice, RecognitionJob
from lung_d2.recognition.ray_cluster import run_on_ray
from lung_d2.recognition.sources import find_inputs
from lung_d2.recognition.summary import DONE, FAILED
from recognition.chests import write_chest, write_model


def test_missing_ray_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    job = RecognitionJob(ModelChoice(tmp_path / "config.yaml", ()), tmp_path)
    with pytest.raises(DependencyError, match=r"ray: not installed; .*pip install 'lung_d2\[ray\]'"):
        list(run_on_ray(job, [], "auto"))


@pytest.fixture(scope="module")
def cluster():
    """Give a cluster whose two nodes have room for one task each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config, weights = write_model(tmp_path_factory.mktemp("model"))
    return ModelChoice(config, ("MODEL.WEIGHTS", str(weights)))


@pytest.mark.slow
def test_both_nodes_recognise_series(cluster, model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write_chest(tmp_path / "tree" / str(number), SeriesInstanceUID=f"1.2.{number}")
    (tmp_path / "tree" / "2" / "005.dcm").unlink()  # a gap
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)  # relative paths are those of this process
    inputs = find_inputs([Path("tree")])
    job = RecognitionJob(model, Path("out"))
    found = {source.series_instance_uid: row for source, row in run_on_ray(job, inputs.series, cluster.address)}
    assert {uid: row.status for uid, row in found.items()} == {
        "1.2.0": DONE, "1.2.1": DONE, "1.2.2": FAILED, "1.2.3": DONE
    }  # fmt: skip
    assert found["1.2.2"].found
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        row.series_hash for row in found.values() if row.status == DONE
    }
    assert all((tmp_path / "out" / found[uid].series_hash / "manifest.json").is_file() for uid in ("1.2.0", "1.2.3"))


@pytest.mark.slow
def test_model_that_cannot_be_loaded_is_said_once(cluster, model, tmp_path: Path) -> None:
    broken = ModelChoice(model.config_file, ("MODEL.WEIGHTS", str(tmp_path / "none.pth")))
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file"):
        list(run_on_ray(RecognitionJob(broken, tmp_path), [], cluster.address))


@pytest.mark.slow
def test_cluster_that_does_not_answer_is_said(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    job = RecognitionJob(ModelChoice(tmp_path / "config.yaml", ()), tmp_path)
    with pytest.raises(ConfigError, match=r"ray 127\.0\.0\.1:1: no cluster answers"):
        list(run_on_ray(job, [], "127.0.0.1:1"))
