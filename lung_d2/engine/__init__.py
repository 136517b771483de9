"""Training and prediction, exported lazily."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "CTPredictor": "lung_d2.engine.predictor",
    "LungCheckpointer": "lung_d2.engine.checkpoint",
    "LungTrainer": "lung_d2.engine.trainer",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
