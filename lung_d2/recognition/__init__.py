"""The whole way from sources on disk to findings on disk: what tools/recognize.py calls."""

from lung_d2.lazy import export_lazily

_EXPORTS = {
    "LabelFiles": "lung_d2.recognition.settings",
    "Recognition": "lung_d2.recognition.result",
    "RecognitionSettings": "lung_d2.recognition.settings",
    "recognize": "lung_d2.recognition.pipeline",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
