"""Training: it goes on where it was killed, stops where it converged, and repeats by its seed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import get_cfg

from lung_d2 import add_lung_config
from lung_d2.categories import CATEGORIES, Categories, describe_category
from lung_d2.config.keys import input_settings
from lung_d2.engine import CTPredictor, LungCheckpointer, LungTrainer
from lung_d2.engine.convergence import ConvergenceStop
from lung_d2.engine.trainer import adopt_categories
from lung_d2.errors import CheckpointError, DatasetError, TrainingError
from tiny import CONFIGS, TINY_OPTS, tiny_config, write_tiny_dataset

TESTS = Path(__file__).resolve().parents[1]
ITERATIONS = 40
SCHEDULE = ("SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 8, "SOLVER.BASE_LR", 0.01, "DATASETS.TEST", ())
# A loss that never falls by nine tenths has converged after the window and the patience.
CONVERGE = ("SOLVER.CONVERGENCE.WINDOW", 2, "SOLVER.CONVERGENCE.PATIENCE", 4, "SOLVER.CONVERGENCE.TOLERANCE", 0.9)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    write_tiny_dataset(folder)
    return folder


def run_apart(root: Path, output: Path, *options: Any, workers: int = 0) -> int:
    """Train in a process of its own; return its exit status."""
    output.mkdir(exist_ok=True)
    script = str(TESTS / "engine" / "train_until_killed.py")
    command = [sys.executable, script, "--root", str(root), "--output", str(output)]
    flags = options[:2] if options and str(options[0]).startswith("--") else ()
    pairs = (*SCHEDULE, "DATALOADER.NUM_WORKERS", workers, *options[len(flags) :])
    command += [str(option) for option in (*flags, *pairs)]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode


def read_losses(output: Path) -> dict[int, float]:
    """Return the last loss written for each iteration."""
    lines = (output / "losses.txt").read_text().splitlines()
    return {int(iteration): float(loss) for iteration, loss in (line.split() for line in lines)}


@pytest.fixture(scope="module")
def uninterrupted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    output = tmp_path_factory.mktemp("uninterrupted")
    assert run_apart(root, output) == 0
    losses = read_losses(output)
    assert sorted(losses) == list(range(ITERATIONS))
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "workers", "resumes_at"),
    [
        pytest.param(("--kill-at", 18), 0, 16, id="between saves"),
        pytest.param(("--kill-at", 18), 2, 16, id="between saves, 2 workers"),
        pytest.param(("--kill-in-save", 2), 0, 8, id="during a save"),
    ],
)
def test_killed_and_resumed_run_repeats_the_losses(
    root: Path, uninterrupted: dict[int, float], tmp_path: Path, kill: tuple[str, int], workers: int, resumes_at: int
) -> None:
    assert run_apart(root, tmp_path, *kill, workers=workers) == -signal.SIGKILL
    (tmp_path / "losses.txt").unlink()
    assert run_apart(root, tmp_path, workers=workers) == 0
    losses = read_losses(tmp_path)
    assert min(losses) == resumes_at
    for iteration in range(resumes_at, resumes_at + 20):
        assert losses[iteration] == pytest.approx(uninterrupted[iteration], rel=1e-4)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_final.pth"] or (
        sorted(path.name for path in tmp_path.glob("*.pth")) == ["model_0000039.pth", "model_final.pth"]
    )
    assert not (tmp_path / ".saving").exists()


@pytest.mark.slow
def test_run_without_a_seed_goes_on_with_the_one_it_drew(root: Path, tmp_path: Path) -> None:
    varied = ("SEED", -1, "INPUT.MIN_SIZE_TRAIN", (56, 64, 72), "INPUT.MAX_SIZE_TRAIN", 96, "SOLVER.AMP.ENABLED", True)
    assert run_apart(root, tmp_path, "--kill-at", 22, *varied) == -signal.SIGKILL
    before = read_losses(tmp_path)
    (tmp_path / "losses.txt").unlink()
    assert run_apart(root, tmp_path, *varied) == 0
    after = read_losses(tmp_path)
    assert min(after) == 16
    for iteration in range(16, 23):
        assert after[iteration] == pytest.approx(before[iteration], rel=1e-4)


def train(root: Path, output: Path, *opts: Any, resume: bool = False) -> tuple[LungTrainer, Any]:
    trainer = LungTrainer(tiny_config(root, output, *opts))
    trainer.resume_or_load(resume=resume)
    return trainer, trainer.train()


def test_converged_run_stops_evaluates_saves_and_does_not_train_on(root: Path, tmp_path: Path) -> None:
    opts = (*CONVERGE, "SOLVER.MAX_ITER", 60, "SOLVER.WARMUP_ITERS", 3, "SOLVER.STEPS", ())
    trainer, results = train(root, tmp_path, *opts)
    # Armed from 3, the window is full at 4, which is the first best; 4 iterations of patience later it has converged.
    assert trainer.iter == 9
    assert set(results) == {"bbox", "segm"}
    assert (tmp_path / "model_final.pth").is_file()
    again, results_again = train(root, tmp_path, *opts, resume=True)
    assert again.iter == 9
    assert results_again["segm"]["AP"] == results["segm"]["AP"]


def test_stop_is_armed_after_the_last_step_only(root: Path, tmp_path: Path) -> None:
    trainer, _ = train(
        root, tmp_path, *CONVERGE, "SOLVER.MAX_ITER", 30, "SOLVER.WARMUP_ITERS", 0, "SOLVER.STEPS", (12,),
        "DATASETS.TEST", (),
    )  # fmt: skip
    assert trainer.iter == 12 + 1 + 4 + 1


def test_run_that_does_not_converge_stops_at_max_iter(root: Path, tmp_path: Path) -> None:
    trainer, _ = train(root, tmp_path, "SOLVER.MAX_ITER", 4, "SOLVER.WARMUP_ITERS", 0, "DATASETS.TEST", ())
    assert any(isinstance(hook, ConvergenceStop) for hook in trainer._hooks)
    assert trainer.iter == 4
    assert (tmp_path / "model_final.pth").is_file()


def test_seed_repeats_a_run(root: Path, tmp_path: Path) -> None:
    def weights(folder: str, seed: int) -> torch.Tensor:
        opts = ("SOLVER.MAX_ITER", 2, "DATASETS.TEST", (), "SEED", seed)
        trainer, _ = train(root, tmp_path / folder, *opts)
        return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])

    first = weights("first", 3)
    assert torch.equal(first, weights("second", 3))
    assert not torch.equal(first, weights("third", 4))


def test_run_leaves_log_scalars_and_picture(root: Path, tmp_path: Path) -> None:
    train(root, tmp_path, "SOLVER.MAX_ITER", 3, "TEST.EVAL_PERIOD", 2)
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert math.isfinite(rows[0]["total_loss"])
    assert "segm/AP50-bronchiectasis" in rows[-1]
    assert (tmp_path / "training_curves.png").stat().st_size > 5000
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert (tmp_path / "model_best.pth").is_file()
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_mixed_precision_on_cpu_trains(root: Path, tmp_path: Path) -> None:
    trainer, _ = train(root, tmp_path, "SOLVER.MAX_ITER", 2, "SOLVER.AMP.ENABLED", True, "DATASETS.TEST", ())
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


def biggest_step(root: Path, output: Path, *opts: Any) -> float:
    """Return by how much one iteration changes a parameter at most."""
    plain = ("SOLVER.MOMENTUM", 0.0, "SOLVER.WEIGHT_DECAY", 0.0, "SOLVER.WARMUP_ITERS", 0, "SOLVER.BASE_LR", 0.1)
    trainer = LungTrainer(tiny_config(root, output, *plain, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", (), *opts))
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.train()
    pairs = zip(before, trainer.model.parameters(), strict=True)
    return max(float((new.detach() - old).abs().max()) for old, new in pairs)


@pytest.mark.parametrize("mixed", [False, True])
def test_gradients_are_clipped(root: Path, tmp_path: Path, mixed: bool) -> None:
    clip = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1e-3)
    opts = ("SOLVER.AMP.ENABLED", mixed)
    assert biggest_step(root, tmp_path, *opts) > 1e-3
    assert biggest_step(root, tmp_path, *opts, *clip) == pytest.approx(0.1 * 1e-3, rel=1e-3)
    by_norm = (*clip, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm")
    assert 0 < biggest_step(root, tmp_path, *opts, *by_norm) <= 0.1 * 1e-3 * 1.001


COSINE = ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR")


def test_cosine_takes_the_rate_from_warm_up_to_its_end(root: Path, tmp_path: Path) -> None:
    rates = ("SOLVER.BASE_LR", 0.1, "SOLVER.BASE_LR_END", 0.02, "SOLVER.WARMUP_ITERS", 4, "SOLVER.WARMUP_FACTOR", 0.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    cfg = tiny_config(root, tmp_path, *COSINE, *rates, "SOLVER.MAX_ITER", 16)
    scheduler = LungTrainer.build_lr_scheduler(cfg, optimizer)
    found = []
    for _ in range(16):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    cosine = [0.02 + 0.08 * (1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)]
    assert found[4:] == pytest.approx(cosine[4:])
    assert found[:4] == pytest.approx([cosine[4] * step / 4 for step in range(4)])


def test_falling_rate_is_not_stopped_by_convergence(root: Path, tmp_path: Path) -> None:
    """The loss moves as long as the rate does: a cosine runs to its end."""
    opts = (*CONVERGE, *COSINE, "SOLVER.MAX_ITER", 12, "SOLVER.WARMUP_ITERS", 0, "DATASETS.TEST", ())
    assert train(root, tmp_path, *opts)[0].iter == 12


def test_infinite_loss_is_an_error_with_its_remedy(root: Path, tmp_path: Path) -> None:
    opts = ("SOLVER.MAX_ITER", 30, "SOLVER.BASE_LR", 1e6, "SOLVER.WARMUP_ITERS", 0, "DATASETS.TEST", ())
    with pytest.raises(TrainingError, match="BASE_LR"):
        train(root, tmp_path, *opts)
    assert not (tmp_path / "model_final.pth").exists()


def test_new_run_in_a_used_folder_leaves_the_old_checkpoints(root: Path, tmp_path: Path) -> None:
    (tmp_path / "model_0000099.pth").write_bytes(b"an older run's")
    (tmp_path / "last_checkpoint").write_text("model_0000099.pth")
    opts = ("SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_PERIOD", 1, "DATASETS.TEST", ())
    train(root, tmp_path, *opts)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000002.pth",
        "model_0000099.pth",
        "model_final.pth",
    ]


def test_evaluation_leaves_the_config_of_the_run(root: Path, tmp_path: Path) -> None:
    cfg = tiny_config(root, tmp_path)
    LungCheckpointer(LungTrainer.build_model(cfg), str(tmp_path), settings=input_settings(cfg)).save("random")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    before = (tmp_path / "config.yaml").read_text()
    command = [sys.executable, "tools/train_net.py", "--config-file", str(tmp_path / "config.yaml"), "--eval-only"]
    command += ["MODEL.WEIGHTS", str(tmp_path / "random.pth"), "TEST.AUG.ENABLED", "True"]
    command += ["TEST.AUG.MIN_SIZES", "(64,)", "TEST.AUG.MAX_SIZE", "64"]
    environment = os.environ | {"DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "config.yaml").read_text() == before
    for folder in (tmp_path / "inference" / "tiny_val", tmp_path / "inference_TTA" / "tiny_val"):
        assert set(json.loads((folder / "results.json").read_text())) == {"bbox", "segm"}
        assert (folder / "evaluation.html").is_file()


def test_data_set_that_was_not_prepared_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no_such_train.*prepare_dataset"):
        LungTrainer(tiny_config(root, tmp_path, "DATASETS.TRAIN", ("no_such_train",)))


def train_in_two_processes(root: Path, output: Path, *opts: Any) -> subprocess.CompletedProcess[str]:
    cfg = tiny_config(root, output, "SOLVER.MAX_ITER", 4, "SOLVER.WARMUP_ITERS", 2, *opts)
    (output / "tiny.yaml").write_text(cfg.dump())
    command = [sys.executable, "tools/train_net.py", "--config-file", str(output / "tiny.yaml"), "--num-gpus", "2"]
    environment = os.environ | {"DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_processes_on_cpu_train_as_one_run(root: Path, tmp_path: Path) -> None:
    done = train_in_two_processes(root, tmp_path, "SOLVER.EMA.ENABLED", True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "log.txt.rank1").is_file()
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 3
    assert checkpoint["model"].keys() == checkpoint["raw_model"].keys()
    assert not any(name.startswith("module.") for name in checkpoint["model"])
    assert (tmp_path / "inference" / "tiny_val" / "evaluation.html").is_file()  # of the last evaluation


@pytest.mark.slow
def test_error_of_a_child_process_is_one_line_too(root: Path, tmp_path: Path) -> None:
    done = train_in_two_processes(root, tmp_path, "DATASETS.TRAIN", ("no_such_train",))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: data set no_such_train: not prepared")


@pytest.fixture(scope="module")
def said_by_two(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run ``two_processes.py``, whose first process alone has a checkpoint; give its lines. A hang fails."""
    folder = tmp_path_factory.mktemp("two")
    train(root, folder / "0", "SOLVER.MAX_ITER", 2, "DATASETS.TEST", ())
    command = [sys.executable, str(TESTS / "engine" / "two_processes.py"), str(root), str(folder)]
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return sorted(done.stdout.replace(str(folder), "FOLDER").splitlines())


def test_two_processes_stop_at_the_same_iteration(said_by_two: list[str]) -> None:
    """The first finds the loss flat at iteration 6, and tells it at the next check, after which both stop."""
    stopped = [line for line in said_by_two if "stopped" in line]
    assert stopped == [f"{rank}: stopped at 21, converged at 20" for rank in (0, 1)]


def test_machines_with_different_checkpoints_are_told_to_share(said_by_two: list[str]) -> None:
    """The second process sees no checkpoint: its folder is another, as on a machine that shares none."""
    refused = [line for line in said_by_two if "stopped" not in line]
    assert len(refused) == 2
    for rank, line in enumerate(refused):
        assert line.startswith(f"{rank}: FOLDER/{rank}: processes that would start at iterations 2, 0; ")
        assert "share OUTPUT_DIR between the machines" in line


def test_config_of_detectron2s_usual_way_trains_like_a_loaded_one(root: Path, tmp_path: Path) -> None:
    """What is used is in the dumped config."""
    loaded = tiny_config(root, tmp_path)
    cfg = get_cfg()
    add_lung_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "Base-LungCT-RCNN-FPN.yaml"))
    names = ("DATASETS.TRAIN", ("tiny_train",), "DATASETS.TEST", ("tiny_val",), "OUTPUT_DIR", str(tmp_path))
    cfg.merge_from_list([*TINY_OPTS, *names])
    (tmp_path / "config.yaml").write_text(cfg.dump())  # as default_setup does
    trainer = LungTrainer(cfg)
    dumped = (tmp_path / "config.yaml").read_text()
    assert yaml.safe_load(trainer.cfg.dump()) == yaml.safe_load(loaded.dump()) == yaml.safe_load(dumped)
    assert trainer.optimizer.defaults["lr"] == loaded.SOLVER.BASE_LR == 0.0025  # 0.02 is for 16 images
    assert trainer.max_iter == 320_000


def test_precise_batch_norm_is_estimated_before_the_evaluation(root: Path, tmp_path: Path) -> None:
    norm = ("MODEL.RESNETS.NORM", "BN", "SOLVER.BASE_LR", 1e-9, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ())
    means = []
    for precise in (False, True):
        opts = (*norm, "TEST.PRECISE_BN.ENABLED", precise, "TEST.PRECISE_BN.NUM_ITER", 2)
        trainer, _ = train(root, tmp_path / str(precise), *opts)
        means.append(float(trainer.model.backbone.bottom_up.stem.conv1.norm.running_mean.norm()))
    # One iteration takes the running mean a tenth of the way from zero; the precise one is there.
    assert means[1] == pytest.approx(10 * means[0], rel=0.2)


THREE = Categories([*CATEGORIES, describe_category("consolidation", 3)])


def test_number_of_classes_and_checkpoints_follow_the_data(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = str(tmp_path / "model_final.pth")
    cfg = tiny_config(root, tmp_path, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", (), "MODEL.WEIGHTS", weights)
    of_data = {"tiny_train": {"categories": THREE}, "tiny_val": {}}
    monkeypatch.setattr("lung_d2.engine.trainer.MetadataCatalog", SimpleNamespace(get=of_data.__getitem__))
    with pytest.raises(DatasetError, match=r"data set tiny_val: .*; expected .*consolidation, as tiny_train has"):
        adopt_categories(cfg, ["tiny_train", "tiny_val"])
    trainer = LungTrainer(cfg)
    trainer.train()
    assert trainer.cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert torch.load(weights, weights_only=True)["categories"] == THREE.to_coco()
    assert CTPredictor(trainer.cfg).categories == THREE
    with pytest.raises(CheckpointError, match=r"trained on the categories .*consolidation; expected 2 of them, as the"):
        CTPredictor(cfg)
    with pytest.raises(CheckpointError, match=r"consolidation; expected .*bronchiectasis, as the data says"):
        LungCheckpointer(LungTrainer.build_model(cfg), categories=CATEGORIES).load(weights)
