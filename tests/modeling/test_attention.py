from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_backbone
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone

from lung_d2.errors import ConfigError
from lung_d2.modeling import AttentionFPN
from lung_d2.modeling.attention import ChannelAttention, SpatialAttention
from tiny import tiny_config

NAME = "build_resnet_attention_fpn_backbone"
LEVELS = ("p2", "p3", "p4", "p5", "p6")


def config(tmp_path, *opts):
    return tiny_config(tmp_path, tmp_path, "MODEL.BACKBONE.NAME", NAME, *opts)


def build(tmp_path, *opts):
    torch.manual_seed(0)
    return build_backbone(config(tmp_path, *opts))


def features(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def stir(module):
    """Give the last layers, which start at zero, weights as a training would."""
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "attention" in name or not isinstance(module, AttentionFPN):
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 4)
    return module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("module", [ChannelAttention(32), SpatialAttention()], ids=["channel", "spatial"])
def test_new_attention_changes_nothing(module, dtype):
    given = features(2, 32, 7, 5).to(dtype)
    assert torch.equal(module.to(dtype)(given), given)


def test_channel_gate_by_hand():
    """One channel in the bottleneck: its weights are 1, so that z is the sum of relu(mean) and relu(peak)."""
    module = ChannelAttention(2, reduction=2)
    with torch.no_grad():
        module.squeeze.weight.copy_(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1))  # looks at the first channel
        module.excite.weight.copy_(torch.tensor([0.0, -1.0]).reshape(2, 1, 1, 1))  # gates the second
    given = torch.tensor([[[[1.0, 3.0]], [[5.0, 7.0]]]])
    gate = 2 / (1 + torch.tensor(2.0 + 3.0).exp())  # mean 2, peak 3
    torch.testing.assert_close(module(given), torch.stack([given[:, 0], given[:, 1] * gate], dim=1))


def test_spatial_gate_by_hand():
    """The middle of the kernel alone is set: each place is gated by its own mean less its own peak."""
    module = SpatialAttention()
    with torch.no_grad():
        module.conv.weight[0, :, 3, 3] = torch.tensor([1.0, -1.0])
    given = torch.tensor([[[[1.0, 4.0]], [[3.0, 4.0]]]])
    gates = torch.tensor([2 / (1 + torch.tensor(1.0).exp()), 1.0])  # mean 2 and peak 3; mean and peak 4
    torch.testing.assert_close(module(given), given * gates)


def test_spatial_gate_sees_three_pixels_to_each_side():
    module = SpatialAttention()
    torch.nn.init.constant_(module.conv.weight, 0.01)
    given = torch.ones(1, 1, 15, 15, requires_grad=True)
    module(given)[0, 0, 7, 7].backward()
    seen = given.grad[0, 0].nonzero()
    assert (seen.min(0).values.tolist(), seen.max(0).values.tolist(), len(seen)) == ([4, 4], [10, 10], 49)


@pytest.mark.parametrize("size", [1, 2, 9])
@pytest.mark.parametrize("module", [ChannelAttention(8, 16), SpatialAttention()], ids=["channel", "spatial"])
def test_gate_lies_between_silence_and_double(module, size):
    stir(module)
    gate = module(torch.ones(3, 8, size, size))
    assert gate.shape == (3, 8, size, size)
    assert ((gate >= 0) & (gate <= 2)).all()
    assert not torch.equal(gate, torch.ones_like(gate))


def test_bottleneck_keeps_one_channel():
    assert ChannelAttention(8, reduction=16).squeeze.out_channels == 1
    assert ChannelAttention(256, reduction=16).squeeze.out_channels == 16


def test_backbone_is_registered_and_shaped_as_detectron2s(tmp_path):
    assert NAME in BACKBONE_REGISTRY
    ours, theirs = build(tmp_path), build_resnet_fpn_backbone(config(tmp_path), ShapeSpec(channels=3))
    assert isinstance(ours, AttentionFPN)
    assert ours.output_shape() == theirs.output_shape()
    assert ours.size_divisibility == theirs.size_divisibility
    found = ours(features(2, 3, 96, 64))
    assert {name: tuple(level.shape) for name, level in found.items()} == {
        name: tuple(level.shape) for name, level in theirs(features(2, 3, 96, 64)).items()
    }
    assert tuple(found) == LEVELS


def test_standard_weights_load_and_give_the_same_features(tmp_path):
    torch.manual_seed(1)
    standard = build_resnet_fpn_backbone(config(tmp_path), ShapeSpec(channels=3)).eval()
    ours = build(tmp_path).eval()
    missing, unexpected = ours.load_state_dict(standard.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"attention"}
    image = features(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(level, standard(image)[name]) for name, level in ours(image).items())


@pytest.mark.parametrize(
    ("channel", "spatial", "expected"),
    [(True, True, {"channel", "spatial"}), (True, False, {"channel"}), (False, True, {"spatial"})],
)
def test_parts_are_switched_by_their_keys(tmp_path, channel, spatial, expected):
    keys = ("MODEL.FPN.ATTENTION.CHANNEL", channel, "MODEL.FPN.ATTENTION.SPATIAL", spatial)
    backbone = build(tmp_path, *keys, "MODEL.FPN.ATTENTION.REDUCTION", 4)
    assert tuple(backbone.attention) == LEVELS
    assert all(set(dict(level.named_children())) == expected for level in backbone.attention.values())
    if channel:
        assert backbone.attention["p2"].channel.squeeze.out_channels == 32 // 4


def test_attention_to_nothing_is_refused(tmp_path):
    """It would be measured, and be the standard pyramid."""
    with pytest.raises(ConfigError, match=r"MODEL\.FPN\.ATTENTION\.CHANNEL: False"):
        config(tmp_path, "MODEL.FPN.ATTENTION.CHANNEL", False, "MODEL.FPN.ATTENTION.SPATIAL", False)


def test_levels_are_gated_apart_after_they_are_summed(tmp_path):
    """What p5 silences is not lost to p4."""
    backbone = build(tmp_path).eval()
    image = features(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(image)
        backbone.attention["p5"].spatial.conv.bias.fill_(-100.0)
        after = backbone(image)
    assert not after["p5"].any()
    assert before["p5"].any()
    assert all(torch.equal(before[name], after[name]) for name in LEVELS if name != "p5")


@pytest.mark.parametrize("mixed", [False, True], ids=["float32", "bfloat16"])
def test_gradients_reach_all_of_it_within_two_steps(tmp_path, mixed):
    backbone = build(tmp_path, "MODEL.FPN.ATTENTION.REDUCTION", 2).train()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    targets = [features(2, 32, 128 // stride, 128 // stride) for stride in (4, 8, 16, 32, 64)]
    for step in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            levels = backbone(features(2, 3, 128, 128))
        loss = sum((level.float() * target).mean() for level, target in zip(levels.values(), targets, strict=True))
        assert torch.isfinite(loss)
        loss.backward()
        hidden = {name for name, value in backbone.attention.named_parameters() if not value.grad.any()}
        assert all("squeeze" in name for name in hidden)
        assert bool(hidden) == (step == 0)
        optimizer.step()
    assert all(torch.isfinite(value).all() for value in backbone.parameters())


@pytest.mark.parametrize("module", [ChannelAttention(32), SpatialAttention()], ids=["channel", "spatial"])
def test_bfloat16_is_near_the_exact_and_stays_bfloat16(module):
    given = features(2, 32, 16, 16).bfloat16()
    with torch.no_grad():
        exact = stir(module)(given.float())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = module(given)
    assert mixed.dtype == torch.bfloat16
    assert (mixed.float() - exact).abs().max() < 0.03 * exact.abs().max()
    assert not torch.equal(mixed, given)


def test_traced_pyramid_is_the_eager_one_at_other_sizes_too(tmp_path):
    backbone = stir(build(tmp_path)).eval()
    with torch.no_grad():
        traced = torch.jit.trace(backbone, features(1, 3, 64, 64), strict=False)
        for shape in ((1, 3, 64, 64), (2, 3, 96, 128)):
            expected = backbone(features(*shape))
            found = traced(features(*shape))
            assert all(torch.equal(found[name], expected[name]) for name in LEVELS)
