"""Load what an importer finds, and say it in numbers that are known by hand."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ct.dicom_files import PLANTED
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.registry import Request
from lung_d2.data.instances import COMPONENTS, InstanceRule
from lung_d2.data.labels import parse_labels
from lung_d2.errors import LungD2Error

FindCases = Callable[..., list[Case]]


def load_case(
    find_cases: FindCases, root: Path, *labels: str, instances: str = COMPONENTS, **options: Any
) -> list[AnnotatedSlice]:
    """Load the only case under a folder, as a worker process would."""
    (case,) = find_cases(Request(root, parse_labels(labels), InstanceRule(instances)), **options)
    return list(pickle.loads(pickle.dumps(case)).load())


def found(slices: Sequence[AnnotatedSlice]) -> list[list[tuple[Any, ...]]]:
    """Return category and pixels (row, column) of every lesion, slice by slice."""
    return [[(one.name, *map(tuple, np.argwhere(mask).tolist())) for one, mask in item.instances] for item in slices]


def union(slices: Sequence[AnnotatedSlice]) -> npt.NDArray[np.bool_]:
    """Return what is marked, ``[Z, Y, X]``."""
    whole = np.zeros((len(slices), *slices[0].plane.shape), bool)
    for plane, item in zip(whole, slices, strict=True):
        for _, mask in item.instances:
            plane |= mask
    return whole


def refuse_case(find_cases: FindCases, root: Path, kind: type[LungD2Error], *labels: str, **options: Any) -> str:
    """Return the message of a refusal, having checked that it is one line and names no patient."""
    with pytest.raises(kind) as caught:
        load_case(find_cases, root, *labels, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in PLANTED)
    return message
