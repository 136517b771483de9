"""A tiny model as a checkpoint and as a weights file, and weights files that are wrong in one thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file, save_file

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.engine.weights.export import export_weights
from tiny import tiny_config

PROVENANCE = {"name": "tiny", "data": [{"name": "tiny_train"}, {"name": "other_train"}], "iterations": 12}
Texts = dict[str, str]


def write_weights(folder: Path, name: str = "tiny", *opts: Any, categories: Categories = CATEGORIES) -> Path:
    """Export a tiny model with random weights, whose scores are about 1/3; return the file."""
    cfg = tiny_config(folder, folder, *opts)
    torch.manual_seed(3)
    path = folder / f"{name}.safetensors"
    export_weights(build_model(cfg).eval(), cfg, {**PROVENANCE, "name": name}, path, categories)
    return path


def read_texts(path: Path) -> Texts:
    """Return the metadata of a file, read without the code under test."""
    content = path.read_bytes()
    header: Any = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return dict(header["__metadata__"])


def rewrite(path: Path, copy: Path, change: Callable[[Texts, dict[str, torch.Tensor]], None]) -> Path:
    """Write a file that differs from another in what ``change`` does to its metadata and tensors."""
    texts, tensors = read_texts(path), load_file(path)
    change(texts, tensors)
    save_file(tensors, copy, texts)
    return copy
