"""What all tests share: the real data beside the project, where it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA_VARIABLE = "LUNG_D2_TEST_DATA"


def find_data_root() -> Path | None:
    """Return the folder of the real data (``$LUNG_D2_TEST_DATA`` or ``../shared/data``), or None without one."""
    named = os.environ.get(DATA_VARIABLE)
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return root if root.is_dir() else None


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Give the folder of the real data; skip the test, with the reason, where there is none."""
    root = find_data_root()
    if root is None:
        pytest.skip(f"no real data: set {DATA_VARIABLE} to its folder, or put it in ../shared/data")
    return root
