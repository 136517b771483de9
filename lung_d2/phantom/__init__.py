"""A synthetic chest CT with known truth, for the quick start, the benchmark and the tests. No torch.

Names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_d2.lazy import export_lazily

if TYPE_CHECKING:
    from lung_d2.phantom.cohort import write_cohort as write_cohort
    from lung_d2.phantom.cohort import write_inserted_cohort as write_inserted_cohort
    from lung_d2.phantom.dicom import write_patient as write_patient
    from lung_d2.phantom.insertion import INSERTED as INSERTED
    from lung_d2.phantom.insertion import InsertedCopy as InsertedCopy
    from lung_d2.phantom.insertion import insert_lesions as insert_lesions
    from lung_d2.phantom.patient import PhantomPatient as PhantomPatient
    from lung_d2.phantom.patient import build_patient as build_patient
    from lung_d2.phantom.real_lung import RealLung as RealLung
    from lung_d2.phantom.real_lung import prepare_lung as prepare_lung
    from lung_d2.phantom.spec import PRESETS as PRESETS
    from lung_d2.phantom.spec import LesionSpec as LesionSpec
    from lung_d2.phantom.spec import PhantomSpec as PhantomSpec
    from lung_d2.phantom.spec import Range as Range
    from lung_d2.phantom.spec import preset_by_name as preset_by_name
    from lung_d2.phantom.truth import PhantomLesion as PhantomLesion

_EXPORTS = {
    "INSERTED": "lung_d2.phantom.insertion",
    "InsertedCopy": "lung_d2.phantom.insertion",
    "LesionSpec": "lung_d2.phantom.spec",
    "PRESETS": "lung_d2.phantom.spec",
    "PhantomLesion": "lung_d2.phantom.truth",
    "PhantomPatient": "lung_d2.phantom.patient",
    "PhantomSpec": "lung_d2.phantom.spec",
    "RealLung": "lung_d2.phantom.real_lung",
    "Range": "lung_d2.phantom.spec",
    "build_patient": "lung_d2.phantom.patient",
    "insert_lesions": "lung_d2.phantom.insertion",
    "prepare_lung": "lung_d2.phantom.real_lung",
    "preset_by_name": "lung_d2.phantom.spec",
    "write_cohort": "lung_d2.phantom.cohort",
    "write_inserted_cohort": "lung_d2.phantom.cohort",
    "write_patient": "lung_d2.phantom.dicom",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
