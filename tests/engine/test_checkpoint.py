"""Checkpoints: nothing in them runs, and none is half written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lung_d2.engine import LungCheckpointer
from lung_d2.errors import CheckpointError


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def model() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl", "weights.pyth"])
def test_pickled_payload_is_refused_and_does_not_run(tmp_path: Path, name: str) -> None:
    ran, path = tmp_path / "ran", tmp_path / name
    content = {"model": {"weight": np.zeros((2, 2), np.float32), "bias": Payload(ran)}, "__author__": "x"}
    if name.endswith(".pkl"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"{name}.*nothing in it ran"):
        LungCheckpointer(model()).load(str(path))
    assert not ran.exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pkl_of_arrays_loads(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "weights.pkl"
    weights = {"weight": np.arange(4, dtype=np.float32).reshape(2, 2), "bias": np.ones(2, np.float32)}
    path.write_bytes(pickle.dumps({"model": weights, "__author__": "torchvision"}, protocol=protocol))
    linear = model()
    LungCheckpointer(linear).load(str(path))
    assert linear.weight.tolist() == [[0, 1], [2, 3]]


def test_r50_weights_in_the_zoo_format_reach_the_backbone(tmp_path: Path) -> None:
    """As detectron2://ImageNetPretrained/torchvision/R-50.pkl: names without prefix, matched by heuristics."""
    from detectron2.modeling import build_model

    from lung_d2 import load_config
    from tiny import CONFIGS

    detector = build_model(load_config(CONFIGS / "Base-LungCT-RCNN-FPN.yaml", ["MODEL.DEVICE", "cpu"]))
    bottom_up = detector.backbone.bottom_up.state_dict()
    planted = {name: np.full(tuple(value.shape), 0.125, np.float32) for name, value in bottom_up.items()}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": planted, "__author__": "torchvision", "matching_heuristics": True}))
    LungCheckpointer(detector, allow_partial=True).load(str(path), checkpointables=[])
    assert all(bool((value == 0.125).all()) for value in detector.backbone.bottom_up.state_dict().values())


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    LungCheckpointer(torch.nn.Linear(3, 2), str(tmp_path)).save("other")
    with pytest.raises(CheckpointError, match=r"other\.pth: without 1 of the model's 2 parameters, weight first"):
        LungCheckpointer(model()).load(str(tmp_path / "other.pth"))


def test_training_starts_from_a_part_but_not_from_nothing(tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.ones(2, 2)}}, tmp_path / "part.pth")
    torch.save({"model": {"layer.weight": torch.ones(2, 2)}}, tmp_path / "nothing.pth")
    linear = model()
    start = LungCheckpointer(linear, allow_partial=True)
    start.load(str(tmp_path / "part.pth"), checkpointables=[])
    assert linear.weight.tolist() == [[1, 1], [1, 1]]
    for path, checkpointables in (("nothing.pth", []), ("part.pth", None)):  # None: a run that is resumed
        with pytest.raises(CheckpointError, match=path):
            start.load(str(tmp_path / path), checkpointables=checkpointables)


def test_weights_for_other_images_are_refused(tmp_path: Path) -> None:
    LungCheckpointer(model(), str(tmp_path), settings={"INPUT.CT.GREY": "window"}).save("window")
    same = LungCheckpointer(model(), settings={"INPUT.CT.GREY": "window"})
    same.load(str(tmp_path / "window.pth"))
    other = LungCheckpointer(model(), settings={"INPUT.CT.GREY": "minmax_clahe"})
    with pytest.raises(CheckpointError, match=r"trained with INPUT\.CT\.GREY window; expected minmax_clahe"):
        other.load(str(tmp_path / "window.pth"))


@pytest.mark.parametrize(
    ("now", "warning"),
    [
        ({}, None),
        ({"MODEL.PIXEL_MEAN": [90.0]}, "trained with MODEL.PIXEL_MEAN [0.0], not [90.0]"),
        ({"INPUT.CT.GREY": "minmax_clahe"}, "trained with INPUT.CT.GREY window, not minmax_clahe"),
        ({"MODEL.ANCHOR_GENERATOR.SIZES": [[8]]}, None),
    ],
)
def test_start_that_saw_other_grey_levels_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, now: dict[str, object], warning: str | None
) -> None:
    settings = {"MODEL.PIXEL_MEAN": [0.0], "INPUT.CT.GREY": "window", "MODEL.ANCHOR_GENERATOR.SIZES": [[16]]}
    torch.save({"model": {"weight": torch.ones(2, 2)}, "settings": settings, "licence": "MIT"}, tmp_path / "part.pth")
    linear = model()
    start = LungCheckpointer(linear, allow_partial=True, settings=settings | now)
    start.load(str(tmp_path / "part.pth"), checkpointables=[])
    assert linear.weight.tolist() == [[1, 1], [1, 1]]
    found = [record.getMessage() for record in caplog.records if " trained with " in record.getMessage()]
    assert found == ([f"{tmp_path / 'part.pth'}: {warning}"] if warning else [])


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"\x80\x04]", b"\x80\x02u.", b"\x80\x02X\x01\0\0\0\xff."]
)
@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
def test_broken_file_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        LungCheckpointer(model()).load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"model": 5}, "holds no state dict"),
        ({"model": {"weight": "much", "bias": torch.ones(2)}}, "holds no state dict"),
        ({"model": torch.nn.Linear(2, 2).state_dict(), "settings": [1]}, "holds settings that are list"),
    ],
)
def test_checkpoint_of_no_sense_is_refused(tmp_path: Path, content: dict[str, Any], match: str) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=rf"odd\.pth: {match}"):
        LungCheckpointer(model()).load(str(tmp_path / "odd.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("checkpointables", [None, []])
def test_weights_that_are_no_numbers_are_refused(
    tmp_path: Path, value: float, checkpointables: list[str] | None
) -> None:
    torch.save({"model": {"weight": torch.ones(2, 2), "bias": torch.tensor([0.0, value])}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth: NaN or infinity in bias"):
        LungCheckpointer(model(), allow_partial=True).load(str(tmp_path / "odd.pth"), checkpointables)


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    LungCheckpointer(model(), str(tmp_path)).save("weights")
    path = tmp_path / "weights.pth"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        LungCheckpointer(model()).load(str(path))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file"):
        LungCheckpointer(model()).load(str(tmp_path / "nowhere.pth"))


def test_address_that_cannot_be_reached_says_where_the_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    address = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
    with pytest.raises(CheckpointError) as caught:
        LungCheckpointer(model()).load(address)
    place = caught.value.remedy.split("put it at ")[1].split(",")[0]
    # The promise holds: with the file at that place, the address loads.
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    weights = {"weight": np.full((2, 2), 3, np.float32), "bias": np.zeros(2, np.float32)}
    Path(place).write_bytes(pickle.dumps({"model": weights, "__author__": "torchvision"}))
    linear = model()
    LungCheckpointer(linear).load(address)
    assert float(linear.weight[0, 0]) == 3


def test_save_that_fails_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpointer = LungCheckpointer(model(), str(tmp_path))
    checkpointer.save("model_0000001")

    def fail(content: Any, stream: Any) -> None:
        stream.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        checkpointer.save("model_0000002")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")
    assert not (tmp_path / "model_0000002.pth").exists()


def test_best_checkpoint_is_not_what_resume_takes_up(tmp_path: Path) -> None:
    LungCheckpointer(model(), str(tmp_path)).save("model_0000001")
    LungCheckpointer(model(), str(tmp_path), tag_last=False).save("model_best")
    assert (tmp_path / "model_best.pth").is_file()
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000001.pth"


NOTICE = {"licence": "MIT\n(c) A/B Lab", "source": "ab12"}


def test_notice_of_a_start_goes_on_from_save_to_save(tmp_path: Path) -> None:
    torch.save({"model": model().state_dict(), **NOTICE}, tmp_path / "start.pth")
    first = LungCheckpointer(model(), str(tmp_path))
    assert first.load(str(tmp_path / "start.pth")).items() >= NOTICE.items()
    first.save("first")
    second = LungCheckpointer(model(), str(tmp_path))
    second.load(str(tmp_path / "first.pth"))
    assert second.notice == NOTICE
    torch.save({"model": model().state_dict()}, tmp_path / "plain.pth")
    second.load(str(tmp_path / "plain.pth"))
    assert second.notice == {}


@pytest.mark.parametrize(
    "held", [{"licence": ["MIT"]}, {"source": 7}, {"licence": "x" * 60_000}, {"source": "x" * 600}]
)
def test_notice_that_is_none_is_left_out(
    tmp_path: Path, held: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model": model().state_dict(), **held}, tmp_path / "start.pth")
    checkpointer = LungCheckpointer(model())
    assert not checkpointer.load(str(tmp_path / "start.pth")).keys() & held.keys()
    assert checkpointer.notice == {}
    assert f"start.pth: its {next(iter(held))} is not a text" in caplog.text
