"""Cut a ResNet-50 that knows chest CT out of a 3-D ResNet-152 that was trained on it.

The source is the image backbone of Astra (MIT), an inflated 3-D ResNet-152 derived from Merlin (Stanford MIMI Lab,
MIT). Its axes are (Z, X to the patient's right, Y to the front), its input is -1000..200 HU as 0..1 in three equal
channels.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from lung_d2.errors import CheckpointError

State = dict[str, torch.Tensor]

SOURCE_BLOCKS = (3, 8, 36, 3)
"""Blocks in the stages of ResNet-152 (He et al., Deep Residual Learning, 2016, table 1)."""
TARGET_BLOCKS = (3, 4, 6, 3)
"""Blocks in the stages of ResNet-50."""
PREFIX = "backbone.bottom_up."
"""Where the ResNet stands in a Detectron2 model with a feature pyramid."""

COUNTER = "num_batches_tracked"
"""Ending of the names of batch norm's counters, which are not weights."""

_REMEDY = "make it again with tools/make_ct_backbone.py"
_BLOCK = re.compile(r"layer(?P<layer>[1-4])\.(?P<block>\d+)\.(?P<part>.+)")
_PARTS = [(r"downsample\.0\.", "shortcut."), (r"downsample\.1\.", "shortcut.norm."), (r"bn([123])\.", r"conv\1.norm.")]


def flatten_kernels(state: Mapping[str, torch.Tensor]) -> State:
    """Turn the weights of a 3-D network into those of the 2-D network that sees one slice.

    A kernel summed over its depth responds to a slice as the 3-D kernel does to a volume of equal slices.

    Args:
        state: Weights with torchvision's names; kernels ``(out, in, Z, X, Y)``, X to the patient's right, Y to the
            front.

    Returns:
        float32 weights of the same names; kernels ``(out, in, rows, columns)``, rows to the back, columns to the left,
        as in a slice. Batch counters are left out.
    """
    kept = {name: value.float() for name, value in state.items() if not name.endswith(COUNTER)}
    return {
        name: value.sum(dim=2).transpose(2, 3).flip(2, 3).contiguous() if value.dim() == 5 else value
        for name, value in kept.items()
    }


def choose_blocks(source: int, target: int) -> list[int]:
    """Return which of ``source`` blocks are kept: ``target`` of them, first and last among them, evenly spread.

    The first block changes size and width and cannot be left out.
    """
    return [round(i * (source - 1) / max(target - 1, 1)) for i in range(target)]


def to_detectron2(state: Mapping[str, torch.Tensor], kept_blocks: Sequence[Sequence[int]]) -> State:
    """Rename the weights of a torchvision ResNet as Detectron2's, with some of the blocks.

    Args:
        state: 2-D weights with torchvision's names.
        kept_blocks: For each of the four stages the blocks that are kept, in their new order.

    Returns:
        The weights under the names of the backbone of a Detectron2 model with a feature pyramid.
    """
    renamed = {}
    for name, value in state.items():
        match = _BLOCK.fullmatch(name)
        if match is None:
            renamed[f"{PREFIX}stem.{_rename(name)}"] = value
            continue
        stage, block = int(match["layer"]), int(match["block"])
        kept = kept_blocks[stage - 1]
        if block in kept:
            renamed[f"{PREFIX}res{stage + 1}.{kept.index(block)}.{_rename(match['part'])}"] = value
    return renamed


def _rename(part: str) -> str:
    for pattern, replacement in _PARTS:
        part = re.sub(pattern, replacement, part)
    return part


def teacher_weights(state: Mapping[str, torch.Tensor]) -> State:
    """Return the 2-D ResNet-152 in Detectron2's names."""
    return to_detectron2(flatten_kernels(state), [range(blocks) for blocks in SOURCE_BLOCKS])


def sampled_weights(state: Mapping[str, torch.Tensor]) -> State:
    """Return a ResNet-50 of evenly chosen blocks in Detectron2's names.

    Its batch norm still fits the blocks left out; ``distillation.py`` brings it closer to the whole network.
    """
    kept = [choose_blocks(*pair) for pair in zip(SOURCE_BLOCKS, TARGET_BLOCKS, strict=True)]
    return to_detectron2(flatten_kernels(state), kept)


def read_backbone(path: str | Path) -> State:
    """Read the weights of a backbone checkpoint; nothing in it runs.

    Raises:
        CheckpointError: The file is missing, broken, or holds something else.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)["model"]
    except OSError as error:
        raise CheckpointError(path, found=type(error).__name__, remedy=_REMEDY) from error
    except (pickle.UnpicklingError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise CheckpointError(path, found="a broken file, or more than tensors", remedy=_REMEDY) from error
    except (KeyError, IndexError, TypeError) as error:
        raise CheckpointError(path, found="no weights under 'model'", remedy=_REMEDY) from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(path, found="no weights under 'model'", remedy=_REMEDY)
    return weights


def load_backbone(network: torch.nn.Module, path: str | Path) -> None:
    """Load a backbone checkpoint into a bottom-up network, in place.

    Raises:
        CheckpointError: It cannot be read, or its weights are not those of the network; batch counters may be missing.
    """
    weights = {name.removeprefix(PREFIX): value for name, value in read_backbone(path).items()}
    wanted = {name: value.shape for name, value in network.state_dict().items() if not name.endswith(COUNTER)}
    given = {name: value.shape for name, value in weights.items() if not name.endswith(COUNTER)}
    wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if wrong:
        found = f"{len(wrong)} weights that are missing, unexpected or of another shape, {wrong[0]} first"
        raise CheckpointError(path, found=found, expected="those of MODEL.RESNETS", remedy=_REMEDY)
    network.load_state_dict(weights, strict=False)  # only counters may be missing
