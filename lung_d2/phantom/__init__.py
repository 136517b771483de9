"""A synthetic chest CT with known truth, for the quick start, the benchmark and the tests. No torch.

Names are imported when first used.
"""

from lung_d2.lazy import export_lazily

_EXPORTS = {
    "LesionSpec": "lung_d2.phantom.spec",
    "PRESETS": "lung_d2.phantom.spec",
    "PhantomLesion": "lung_d2.phantom.truth",
    "PhantomPatient": "lung_d2.phantom.patient",
    "PhantomSpec": "lung_d2.phantom.spec",
    "Range": "lung_d2.phantom.spec",
    "build_patient": "lung_d2.phantom.patient",
    "preset_by_name": "lung_d2.phantom.spec",
    "write_cohort": "lung_d2.phantom.cohort",
    "write_patient": "lung_d2.phantom.dicom",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
