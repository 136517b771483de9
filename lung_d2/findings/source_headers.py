"""Headers of source images, as highdicom reads them: cleaned, and with the geometry that a volume was read with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from lung_d2.ct.headers import text_of
from lung_d2.ct.planes import Plane
from lung_d2.ct.volume import CTVolume


def shared_geometry(planes: Sequence[Plane], volume: CTVolume) -> Dataset:
    """Return what all planes share, as a classic image has it; thickness is what a slice of a mask stands for."""
    shared = Dataset()
    orientations = {plane.image_orientation_patient for plane in planes}
    if len(orientations) == 1:
        shared.ImageOrientationPatient = _decimals(orientations.pop())
    else:  # They differ by rounding: the mean, as the volume has it.
        directions = volume.affine_lps[:3, :2] / np.linalg.norm(volume.affine_lps[:3, :2], axis=0)
        shared.ImageOrientationPatient = _decimals(directions.T.ravel())
    shared.PixelSpacing = _decimals(planes[0].pixel_spacing_mm)
    shared.SliceThickness = shared.SpacingBetweenSlices = format_number_as_ds(volume.spacing_mm[0])
    shared.Rows, shared.Columns = planes[0].size
    return shared


def classic_image(identity: Dataset, plane: Plane, geometry: Dataset) -> Dataset:
    """Return the header of one slice, given what all slices share."""
    image = _image(identity, plane)
    image.update(geometry)
    image.ImagePositionPatient = _decimals(plane.image_position_patient)
    return image


def enhanced_image(identity: Dataset, planes: Sequence[Plane], geometry: Dataset) -> Dataset:
    """Return the file by its functional groups; ``planes`` are all its frames, also those that the volume left out."""
    image = _image(identity, planes[0])
    image.NumberOfFrames = len(planes)
    image.Rows, image.Columns = geometry.Rows, geometry.Columns
    shared = Dataset()
    shared.PlaneOrientationSequence = [_pick(geometry, "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_pick(geometry, "PixelSpacing", "SliceThickness", "SpacingBetweenSlices")]
    image.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for plane in planes:
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = _decimals(plane.image_position_patient)
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    image.PerFrameFunctionalGroupsSequence = frames
    return image


def _image(identity: Dataset, plane: Plane) -> Dataset:
    image = Dataset()
    image.update(identity)
    image.SOPClassUID = text_of(plane.header.dataset, "SOPClassUID")
    image.SOPInstanceUID = plane.sop_instance_uid
    return image


def _decimals(numbers: Iterable[float]) -> list[str]:
    """Return decimal strings of at most 16 characters (PS3.5 6.2, VR DS)."""
    return [format_number_as_ds(float(number)) for number in numbers]


def _pick(dataset: Dataset, *names: str) -> Dataset:
    part = Dataset()
    for name in names:
        part.add(dataset[name])
    return part
