"""A synthetic chest CT with known truth, for the quick start, the benchmark and the tests. No torch.

Names are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lung_d2.phantom.cohort import write_cohort as write_cohort
    from lung_d2.phantom.dicom import write_patient as write_patient
    from lung_d2.phantom.patient import PhantomPatient as PhantomPatient
    from lung_d2.phantom.patient import build_patient as build_patient
    from lung_d2.phantom.presets import PRESETS as PRESETS
    from lung_d2.phantom.presets import preset_by_name as preset_by_name
    from lung_d2.phantom.spec import LesionSpec as LesionSpec
    from lung_d2.phantom.spec import PhantomSpec as PhantomSpec
    from lung_d2.phantom.spec import Range as Range
    from lung_d2.phantom.truth import PhantomLesion as PhantomLesion

_MODULES = {
    "LesionSpec": "spec",
    "PRESETS": "presets",
    "PhantomLesion": "truth",
    "PhantomPatient": "patient",
    "PhantomSpec": "spec",
    "Range": "spec",
    "build_patient": "patient",
    "preset_by_name": "presets",
    "write_cohort": "cohort",
    "write_patient": "dicom",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
