"""CT input: DICOM and NIfTI to volumes in HU, and volumes to images. No torch.

Names are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lung_d2.ct.grey import GreyLevels as GreyLevels
    from lung_d2.ct.nifti import LabelVolume as LabelVolume
    from lung_d2.ct.nifti import labels_on_grid as labels_on_grid
    from lung_d2.ct.nifti import read_label_volume as read_label_volume
    from lung_d2.ct.nifti import read_nifti_volume as read_nifti_volume
    from lung_d2.ct.nifti import write_nifti as write_nifti
    from lung_d2.ct.series import CTSeries as CTSeries
    from lung_d2.ct.series import find_series as find_series
    from lung_d2.ct.slices import image_from_planes as image_from_planes
    from lung_d2.ct.slices import slice_image as slice_image
    from lung_d2.ct.volume import CTVolume as CTVolume
    from lung_d2.ct.volume import load_series as load_series
    from lung_d2.ct.volume import read_volume as read_volume

_MODULES = {
    "CTSeries": "series",
    "CTVolume": "volume",
    "GreyLevels": "grey",
    "LabelVolume": "nifti",
    "find_series": "series",
    "image_from_planes": "slices",
    "labels_on_grid": "nifti",
    "load_series": "volume",
    "read_label_volume": "nifti",
    "read_nifti_volume": "nifti",
    "read_volume": "volume",
    "slice_image": "slices",
    "write_nifti": "nifti",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
