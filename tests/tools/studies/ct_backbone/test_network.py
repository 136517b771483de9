"""The cut from a 3-D network to a ResNet-50: axes, names and blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_resnet_backbone
from torch.nn import functional

from ct_networks import as_source, build_narrow
from lung_d2.errors import CheckpointError
from studies.ct_backbone.network import (
    PREFIX,
    choose_blocks,
    flatten_kernels,
    load_backbone,
    read_backbone,
    sampled_weights,
    teacher_weights,
    to_detectron2,
)


def test_flat_kernel_answers_a_slice_as_the_3d_kernel_answers_equal_slices():
    generator = torch.Generator().manual_seed(0)
    kernel = torch.rand(5, 2, 3, 3, 3, generator=generator)
    plane = torch.rand(2, 7, 9, generator=generator)  # rows to the back, columns to the left
    volume = plane.flip(1, 2).transpose(1, 2)[:, None].expand(-1, 3, -1, -1)  # Z, X to the right, Y to the front
    deep = functional.conv3d(volume[None], kernel)[0, :, 0]
    flat = functional.conv2d(plane[None], flatten_kernels({"conv1.weight": kernel})["conv1.weight"])[0]
    torch.testing.assert_close(flat, deep.transpose(1, 2).flip(1, 2))


def test_counters_of_batches_are_left_out():
    state = {"bn1.num_batches_tracked": torch.tensor(3), "bn1.weight": torch.ones(2, dtype=torch.bfloat16)}
    flat = flatten_kernels(state)
    assert list(flat) == ["bn1.weight"]
    assert flat["bn1.weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("source", "target", "kept"),
    [(3, 3, [0, 1, 2]), (8, 4, [0, 2, 5, 7]), (36, 6, [0, 7, 14, 21, 28, 35]), (5, 1, [0])],
)
def test_first_and_last_block_are_kept_and_some_between(source, target, kept):
    assert choose_blocks(source, target) == kept


def test_renamed_weights_give_what_torchvision_gives():
    theirs = torchvision.models.resnet50(weights=None).eval()
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.RESNETS.STRIDE_IN_1X1", False, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256])
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res5"]
    ours = build_resnet_backbone(cfg, ShapeSpec(channels=3)).eval()
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("fc.")}
    renamed = to_detectron2(flatten_kernels(state), [range(3), range(4), range(6), range(3)])
    ours.load_state_dict({name.removeprefix(PREFIX): value for name, value in renamed.items()})
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image)))))
        last = theirs.layer4(theirs.layer3(theirs.layer2(first)))
        found = ours(image)
    torch.testing.assert_close(found["res2"], first)
    torch.testing.assert_close(found["res5"], last)


def test_deep_network_is_found_again_in_its_3d_form():
    network = build_narrow(152)
    found = teacher_weights(as_source(network))
    assert set(found) == {f"{PREFIX}{name}" for name in network.state_dict()}
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found[f"{PREFIX}{name}"], value)


def test_sampled_network_is_a_resnet_50_of_the_same_first_stage():
    network = build_narrow(152)
    found = sampled_weights(as_source(network))
    small = build_narrow(50)
    small.load_state_dict({name.removeprefix(PREFIX): value for name, value in found.items()})
    torch.testing.assert_close(small.res2.state_dict(), network.res2.state_dict())
    torch.testing.assert_close(small.res4[5].state_dict(), network.res4[35].state_dict())


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 no archive", None])
def test_file_that_holds_no_checkpoint_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pth.*make_ct_backbone") as caught:
        read_backbone(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [[1], {"weights": {}}, {"model": 3}, {"model": {"stem": "text"}}, {"model": Path()}]
)
def test_checkpoint_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth"):
        read_backbone(tmp_path / "weights.pth")


def save_without(ending: str, path: Path) -> torch.nn.Module:
    network = build_narrow(50, norm="BN")
    kept = {f"{PREFIX}{name}": value for name, value in network.state_dict().items() if not name.endswith(ending)}
    torch.save({"model": kept}, path)
    return network


def test_counters_may_be_missing(tmp_path: Path) -> None:
    network = save_without("num_batches_tracked", tmp_path / "weights.pth")
    other = build_narrow(50, norm="BN")
    load_backbone(other, tmp_path / "weights.pth")
    torch.testing.assert_close(other.res5[2].conv3.weight, network.res5[2].conv3.weight)


@pytest.mark.parametrize("ending", ["res4.5.conv2.weight", "res3.0.conv1.norm.running_var"])
def test_weight_that_is_missing_is_named(tmp_path: Path, ending: str) -> None:
    save_without(ending, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=rf"1 weights.*{ending}"):
        load_backbone(build_narrow(50), tmp_path / "weights.pth")


def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    weights = build_narrow(101).state_dict()
    torch.save({"model": {f"{PREFIX}{name}": value for name, value in weights.items()}}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"res4\.10\."):
        load_backbone(build_narrow(50), tmp_path / "weights.pth")
