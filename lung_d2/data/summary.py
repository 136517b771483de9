"""What a data set holds, counted and measured, and what looks wrong in it: its report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lung_d2.data.selection import Selection


def build_summary(
    name: str,
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    kept: Mapping[str, Sequence[Mapping[str, Any]]],
    selection: Selection,
    leaks: Sequence[Any],
) -> dict[str, Any]:
    """Build the report of a data set."""
    return {"schema_version": 1, "name": name, "slices": {one: len(members) for one, members in kept.items()}}
