"""Data sets: from annotations of any tool to what the model is given, exported lazily."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "CTDatasetMapper": "lung_d2.data.mapper",
    "build_train_loader": "lung_d2.data.loader",
    "register_lung_datasets": "lung_d2.data.register",
    "split_by_patient": "lung_d2.data.splits",
    "write_dataset": "lung_d2.data.dataset",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
