"""Training and prediction."""

from lung_d2.lazy import export_lazily

_EXPORTS = {
    "CTPredictor": "lung_d2.engine.predictor",
    "LungCheckpointer": "lung_d2.engine.checkpoint",
    "LungTrainer": "lung_d2.engine.trainer",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
