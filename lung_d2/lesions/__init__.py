"""Lesions: what the network found, slice by slice and in 3-D, and its measures. No torch.

Names are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lung_d2.lazy import export_lazily

if TYPE_CHECKING:
    from lung_d2.lesions.detections import SliceDetections as SliceDetections
    from lung_d2.lesions.lesion import Lesion as Lesion
    from lung_d2.lesions.link import LinkSettings as LinkSettings
    from lung_d2.lesions.link import link_lesions as link_lesions
    from lung_d2.lesions.lobes import LOBES as LOBES
    from lung_d2.lesions.lobes import LUNGMASK_LOBES as LUNGMASK_LOBES
    from lung_d2.lesions.lobes import TOTALSEGMENTATOR_LOBES as TOTALSEGMENTATOR_LOBES
    from lung_d2.lesions.lobes import LobeField as LobeField
    from lung_d2.lesions.lobes import LobeShare as LobeShare
    from lung_d2.lesions.lobes import build_lobe_field as build_lobe_field
    from lung_d2.lesions.measure import Measurement as Measurement
    from lung_d2.lesions.measure import measure_lesion as measure_lesion
    from lung_d2.lesions.measure import measure_lesions as measure_lesions
    from lung_d2.lesions.totals import SeverityScore as SeverityScore
    from lung_d2.lesions.totals import Total as Total
    from lung_d2.lesions.totals import VolumeRange as VolumeRange
    from lung_d2.lesions.totals import VolumeRanges as VolumeRanges
    from lung_d2.lesions.totals import measure_totals as measure_totals
    from lung_d2.lesions.totals import measure_volume_ranges as measure_volume_ranges
    from lung_d2.lesions.totals import score_severity as score_severity

_EXPORTS = {
    "LOBES": "lung_d2.lesions.lobes",
    "LUNGMASK_LOBES": "lung_d2.lesions.lobes",
    "Lesion": "lung_d2.lesions.lesion",
    "LinkSettings": "lung_d2.lesions.link",
    "LobeField": "lung_d2.lesions.lobes",
    "LobeShare": "lung_d2.lesions.lobes",
    "Measurement": "lung_d2.lesions.measure",
    "SeverityScore": "lung_d2.lesions.totals",
    "SliceDetections": "lung_d2.lesions.detections",
    "TOTALSEGMENTATOR_LOBES": "lung_d2.lesions.lobes",
    "Total": "lung_d2.lesions.totals",
    "VolumeRange": "lung_d2.lesions.totals",
    "VolumeRanges": "lung_d2.lesions.totals",
    "build_lobe_field": "lung_d2.lesions.lobes",
    "link_lesions": "lung_d2.lesions.link",
    "measure_lesion": "lung_d2.lesions.measure",
    "measure_lesions": "lung_d2.lesions.measure",
    "measure_totals": "lung_d2.lesions.totals",
    "measure_volume_ranges": "lung_d2.lesions.totals",
    "score_severity": "lung_d2.lesions.totals",
}

__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = export_lazily(__name__, _EXPORTS)
