"""lung_d2: ground-glass opacity and bronchiectasis on chest CT, a Detectron2 plugin project."""

from lung_d2.lazy import export_lazily

__version__ = "0.1.0"

_EXPORTS = {
    "CATEGORIES": "lung_d2.categories",
    "Recognition": "lung_d2.recognition",
    "add_lung_config": "lung_d2.config",
    "ct": "lung_d2.ct",
    "data": "lung_d2.data",
    "engine": "lung_d2.engine",
    "load_config": "lung_d2.config",
    "phantom": "lung_d2.phantom",
    "read_volume": "lung_d2.ct",
    "recognize": "lung_d2.recognition",
    "register_lung_datasets": "lung_d2.data",
    "slice_image": "lung_d2.ct",
}

__all__ = [*sorted(_EXPORTS), "__version__"]
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
