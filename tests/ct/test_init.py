"""The face of the room: names that exist, and no torch behind them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lung_d2.ct


def test_every_public_name_exists() -> None:
    assert all(callable(getattr(lung_d2.ct, name)) for name in lung_d2.ct.__all__)
    assert set(lung_d2.ct.__all__) <= set(dir(lung_d2.ct))
    with pytest.raises(AttributeError):
        _ = lung_d2.ct.absent


def test_no_torch_is_loaded() -> None:
    code = "import sys, lung_d2.ct as ct; [getattr(ct, name) for name in ct.__all__]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
