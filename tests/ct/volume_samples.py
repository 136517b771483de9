"""Small volumes with numbers known by hand, and the text headers of NRRD and MetaImage files around them."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from lung_d2.ct import CTVolume, read_volume
from lung_d2.errors import InputError

FLIP_XY = np.diag([-1.0, -1.0, 1.0, 1.0])
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")

NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "5 6 4",
    "space directions": "(0.75,0,0) (0,0.5,0) (0,0,2)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(-30,-20,100)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-30 -20 100",
    "ElementSpacing": "0.75 0.5 2",
    "DimSize": "5 6 4",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


def ct_array(shape: tuple[int, int, int] = (4, 6, 5)) -> np.ndarray:
    """Give HU ``[Z, Y, X]`` that differ in every voxel and hold air."""
    return (np.arange(np.prod(shape)).reshape(shape) - 1000).astype(np.int16)


def make_affine() -> np.ndarray:
    """Give index (x, y, z, 1) to LPS mm, of the grid that the headers here state."""
    affine = np.diag([0.75, 0.5, 2.0, 1.0])
    affine[:3, 3] = [-30, -20, 100]
    return affine


def refused(path: Path) -> str:
    """Return the message with which a file is refused, one line that names it, without that name."""
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")  # tmp_path may hold the words that a test looks for


def check_sample(volume: CTVolume) -> None:
    """Check that a volume is ``ct_array`` in its place."""
    np.testing.assert_array_equal(volume.hu, ct_array())
    np.testing.assert_allclose(volume.affine_lps, make_affine())


def write_nrrd(path: Path, data: bytes | None = None, **fields: str | None) -> Path:
    """Write ``ct_array`` under a header with these fields (``_`` for a blank) changed, or left out where None."""
    changed = {name.replace("_", " "): value for name, value in fields.items()}
    lines = [f"{name}: {value}\n" for name, value in {**NRRD, **changed}.items() if value is not None]
    data = ct_array().tobytes() if data is None else data
    path.write_bytes("".join(["NRRD0004\n", *lines, "\n"]).encode() + data)
    return path


def write_meta(path: Path, data: bytes | None = None, **fields: str | None) -> Path:
    """Write ``ct_array`` under a header with these fields changed, or left out where None."""
    merged = {**META, **fields}
    merged["ElementDataFile"] = merged.pop("ElementDataFile")  # it ends the header
    lines = [f"{name} = {value}\n" for name, value in merged.items() if value is not None]
    path.write_bytes("".join(lines).encode() + (ct_array().tobytes() if data is None else data))
    return path


def write_itk(path: Path, array_xyz: np.ndarray, affine_lps: np.ndarray, *, compress: bool = False) -> Path:
    """Write ``[x, y, z]`` with its affine by SimpleITK."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array_xyz.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine_lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), compress)
    return path


def save(path: Path, array_xyz: np.ndarray, affine_lps: np.ndarray) -> Path:
    """Write ``[x, y, z]`` in the format that the name says, by a library that is not ours."""
    if path.suffix in ITK_SUFFIXES:
        return write_itk(path, array_xyz, affine_lps)
    nibabel.save(nibabel.Nifti1Image(array_xyz, FLIP_XY @ affine_lps), path)
    return path
