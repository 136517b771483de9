"""Data sets: from annotations of any tool to what the model is given."""

from lung_d2.lazy import export_lazily

_EXPORTS = {
    "CTDatasetMapper": "lung_d2.data.mapper",
    "PatientLoad": "lung_d2.data.splits",
    "SplitRule": "lung_d2.data.dataset",
    "grey_levels_from_config": "lung_d2.data.mapper",
    "build_train_loader": "lung_d2.data.loader",
    "register_lung_datasets": "lung_d2.data.register",
    "split_by_patient": "lung_d2.data.splits",
    "split_stratified": "lung_d2.data.splits",
    "write_dataset": "lung_d2.data.dataset",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
