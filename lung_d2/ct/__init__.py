"""CT input: DICOM, NIfTI, NRRD and MetaImage to volumes in HU, and volumes to images. No torch.

Names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_d2.lazy import export_lazily

if TYPE_CHECKING:
    from lung_d2.ct.grey import GreyLevels as GreyLevels
    from lung_d2.ct.grey import image_from_planes as image_from_planes
    from lung_d2.ct.grey import slice_image as slice_image
    from lung_d2.ct.labels import LabelVolume as LabelVolume
    from lung_d2.ct.labels import labels_on_grid as labels_on_grid
    from lung_d2.ct.labels import read_label_volume as read_label_volume
    from lung_d2.ct.nifti import write_nifti as write_nifti
    from lung_d2.ct.scan import find_series as find_series
    from lung_d2.ct.series import CTSeries as CTSeries
    from lung_d2.ct.volume import CTVolume as CTVolume
    from lung_d2.ct.volume import load_series as load_series
    from lung_d2.ct.volume import read_volume as read_volume

_EXPORTS = {
    "CTSeries": "lung_d2.ct.series",
    "CTVolume": "lung_d2.ct.volume",
    "GreyLevels": "lung_d2.ct.grey",
    "LabelVolume": "lung_d2.ct.labels",
    "find_series": "lung_d2.ct.scan",
    "image_from_planes": "lung_d2.ct.grey",
    "labels_on_grid": "lung_d2.ct.labels",
    "load_series": "lung_d2.ct.volume",
    "read_label_volume": "lung_d2.ct.labels",
    "read_volume": "lung_d2.ct.volume",
    "slice_image": "lung_d2.ct.grey",
    "write_nifti": "lung_d2.ct.nifti",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
