"""lung_d2: ground-glass opacity and bronchiectasis on chest CT, a Detectron2 plugin project.

The public names are exported lazily, so that ``import lung_d2.ct`` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "CATEGORIES": "lung_d2.categories",
    "Recognition": "lung_d2.recognition",
    "add_lung_config": "lung_d2.config",
    "load_config": "lung_d2.config",
    "read_volume": "lung_d2.ct",
    "recognize": "lung_d2.recognition",
    "register_lung_datasets": "lung_d2.data",
    "slice_image": "lung_d2.ct",
}

__all__ = [*sorted(_EXPORTS), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
