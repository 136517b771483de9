"""The lesions of a volume as one label volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lung_d2.ct.nifti import write_nifti
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import InputError, OutputError
from lung_d2.lesions.lesion import Lesion


def write_lesion_nifti(lesions: Sequence[Lesion], volume: CTVolume, path: str | Path) -> Path:
    """Write the lesions on the grid of the volume; the value of a voxel is the number of its lesion, 0 is none.

    Where lesions overlap, as dilated bronchi inside ground glass do, the smallest is seen: a larger one would hide it.

    Args:
        lesions: May be none.
        volume: The volume on which they were found.
        path: A ``.nii`` or ``.nii.gz`` file; replaced where it exists.

    Returns:
        The file: uint8, or uint16 where there are more than 255 lesions.

    Raises:
        OutputError: It cannot be written.
    """
    highest = max((lesion.number for lesion in lesions), default=0)
    labels = np.zeros(volume.hu.shape, np.uint8 if highest <= 255 else np.uint16)
    for lesion in sorted(lesions, key=lambda one: one.voxel_count, reverse=True):
        labels[lesion.box][lesion.mask] = lesion.number
    try:
        write_nifti(labels, volume.affine_lps, path)
    except InputError as error:
        raise OutputError(error.where, found=error.found, expected=error.expected, remedy=error.remedy) from error
    return Path(path)
