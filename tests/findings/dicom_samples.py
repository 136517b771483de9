"""Small CT series in any geometry, lesions on them, and readers of what is written of those."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from itertools import permutations, product
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from ct.dicom_files import make_slice, write
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY, Category
from lung_d2.ct.volume import CTVolume
from lung_d2.lesions import Lesion

Affine = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SHAPE = (5, 7, 6)  # 42 pixels a frame: not a whole number of bytes
SPACING_MM = (2.5, 0.9, 0.7)
FRAME_OF_REFERENCE = "1.2.826.0.1.3680043.8.498.3"


def rotations() -> list[Affine]:
    """Return the 24 ways to lay the axes of a right-handed array along those of the patient."""
    found = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = np.eye(4)
        matrix[:3, :3] = np.eye(3)[list(order)] * signs
        if np.linalg.det(matrix) > 0:
            found.append(matrix)
    return found


def base_affine(geometry: str) -> Affine:
    """Return index (x, y, z, 1) to LPS mm: ``axial``, ``oblique`` by 15 or ``tilted`` by 12 degrees."""
    z, y, x = SPACING_MM
    affine = np.diag([x, y, z, 1.0])
    affine[:3, 3] = (-12.3, 45.67, 89.1)
    if geometry == "oblique":  # about an axis between x and y, so that no cosine is 0 or 1
        angle, axis = np.radians(15.0), np.array([0.6, 0.8, 0.0])
        cross = np.cross(np.eye(3), axis)
        turn = np.eye(4)
        turn[:3, :3] = np.eye(3) - np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        return turn @ affine
    if geometry == "tilted":  # the rows of the slices lean back, the table moves along z
        tilt = np.radians(12.0)
        affine[:3, 1] = (0.0, y * np.cos(tilt), y * np.sin(tilt))
        affine[:3, 2] = (0.0, 0.0, z / np.cos(tilt))
    return affine


def write_ct(folder: Path, affine: Affine | None = None, shape: tuple[int, int, int] = SHAPE, **tags: object) -> Path:
    """Write a classic series whose slice k of the affine has the name ``k.dcm``."""
    affine = base_affine("axial") if affine is None else affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    stored = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    shared = {
        "FrameOfReferenceUID": FRAME_OF_REFERENCE,
        "SeriesInstanceUID": generate_uid(),
        "ImageOrientationPatient": decimals((affine[:3, :2] / spacing[:2]).T.ravel()),
        "PixelSpacing": decimals(spacing[1::-1]),
    }
    for index in range(shape[0]):
        position = decimals((affine @ [0.0, 0.0, index, 1.0])[:3])
        write(
            make_slice(stored[index], **{**shared, "ImagePositionPatient": position, **tags}), folder / f"{index}.dcm"
        )
    return folder


def decimals(numbers: Sequence[float]) -> list[str]:
    return [format_number_as_ds(float(number)) for number in numbers]


def make_lesion(number: int, mask: Mask, category: Category = GROUND_GLASS_OPACITY, score: float = 0.875) -> Lesion:
    """Crop a mask ``[Z, Y, X]`` to a lesion."""
    found = np.argwhere(mask)
    low, high = found.min(axis=0), found.max(axis=0) + 1
    crop = mask[tuple(slice(*span) for span in zip(low, high, strict=True))].copy()
    slices = tuple((low[0] + np.flatnonzero(crop.any(axis=(1, 2)))).tolist())
    return Lesion(number, category, score, crop, tuple(low.tolist()), slices, (score,) * len(slices))


def make_masks(shape: tuple[int, int, int] = SHAPE) -> list[Mask]:
    """Return three masks without symmetry: the first two apart, the third in the first."""
    first, second, third = (np.zeros(shape, bool) for _ in range(3))
    first[1:4, 1:4, 1:3] = True
    first[1, 1, 3] = first[3, 4, 1] = True
    second[2:5, 5:7, 4:6] = True
    second[4, 0, 5] = True
    third[2:4, 2, 1:3] = True
    return [first, second, third]


def make_lesions(shape: tuple[int, int, int] = SHAPE) -> list[Lesion]:
    """Return two of ground glass, and bronchiectasis inside the first."""
    first, second, third = make_masks(shape)
    return [make_lesion(1, first), make_lesion(2, second, score=0.5), make_lesion(3, third, BRONCHIECTASIS)]


def read_by_hand(path: Path, segment: int) -> npt.NDArray[np.float64]:
    """Return the centres of a segment's voxels, ``(N, 3)`` LPS mm, from bits and functional groups alone."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    rows, columns = dataset.Rows, dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    frames = bits[: dataset.NumberOfFrames * rows * columns].reshape(-1, rows, columns)
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, across = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    points = []
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        place = group if "SegmentIdentificationSequence" in group else shared
        if place.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
            origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            y, x = np.nonzero(frame)
            points.append(origin + x[:, None] * across * row + y[:, None] * down * column)
    return np.concatenate(points)


def read_by_highdicom(path: Path, segment: int, volume: CTVolume) -> Mask:
    """Return a segment on the slices of a volume, by the images that its frames refer to."""
    segmentation = hd.seg.segread(path)
    if volume.frame_numbers[0] is None:
        found = segmentation.get_pixels_by_source_instance(
            volume.sop_instance_uids, segment_numbers=[segment], assert_missing_frames_are_empty=True
        )
    else:
        found = segmentation.get_pixels_by_source_frame(
            volume.sop_instance_uids[0],
            volume.frame_numbers,
            segment_numbers=[segment],
            assert_missing_frames_are_empty=True,
        )
    return found[..., 0] > 0


def centres(mask: Mask, affine: Affine) -> npt.NDArray[np.float64]:
    """Return the centres of a mask's voxels, ``(N, 3)`` LPS mm."""
    return np.argwhere(mask)[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]


def dice(points: npt.NDArray[np.float64], mask: Mask, affine: Affine) -> float:
    """Compare points with a mask: 1 where each is the centre, within 0.01 mm, of a voxel, and each voxel has one."""
    index = np.linalg.solve(affine[:3, :3], (points - affine[:3, 3]).T).T
    nearest = np.rint(index)
    assert np.abs((index - nearest) @ affine[:3, :3].T).max() < 0.01
    found = {tuple(row) for row in nearest.astype(int).tolist()}
    wanted = {tuple(row) for row in np.argwhere(mask)[:, ::-1].tolist()}
    assert len(found) == len(points)
    return 2 * len(found & wanted) / (len(found) + len(wanted))


def run_tool(*command: str | Path) -> str:
    """Return what a command line tool says; skip the test where it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"no {command[0]}: install Debian's dicom3tools and dcmtk")
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr
