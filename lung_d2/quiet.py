"""Warnings that a user can do nothing about."""

from __future__ import annotations

import warnings


def ignore_deprecations() -> None:
    """Ignore, in this process, the deprecations of torch over which Detectron2 trips."""
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"torch\.meshgrid: in an upcoming release", category=UserWarning)
