"""Volumes written in each format, for the importers that read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from data.importers.truth import Truth
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.ct import write_nifti
from lung_d2.ct.headers import nifti_suffix


def write_volume(array: npt.NDArray[np.generic], affine_lps: npt.NDArray[np.float64], path: Path) -> Path:
    """Write ``[Z, Y, X]`` as NIfTI, NRRD or MetaImage, by the suffix; folders that miss are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if nifti_suffix(path):
        write_nifti(array, affine_lps, path)
        return path
    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine_lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), True)
    return path


def make_overlap(truth: Truth) -> Truth:
    """Return the truth with opacity over half of each bronchiectasis and beside it."""
    bronchiectasis = truth.instances[BRONCHIECTASIS]
    haze = np.where(np.roll(bronchiectasis, 2, axis=2) > 0, 1, truth.instances[GROUND_GLASS_OPACITY])
    assert np.logical_and(haze, bronchiectasis).sum() > 20
    return replace(truth, instances={GROUND_GLASS_OPACITY: haze, BRONCHIECTASIS: bronchiectasis})
