"""What all tests of the phantom share: a patient drawn once is not drawn again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest

from lung_d2.phantom import patient


@pytest.fixture(scope="package", autouse=True)
def scenes() -> Iterator[None]:
    """Keep what is drawn: most of the time that a small phantom takes is the growth of its vessels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patient, "draw_scene", lru_cache(maxsize=32)(patient.draw_scene))
        yield
