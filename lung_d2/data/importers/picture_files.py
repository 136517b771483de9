"""The pictures that annotations name: found where they may lie, and read."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import numpy.typing as npt

from lung_d2.ct.headers import is_dicom
from lung_d2.data.planes import PICTURES, read_picture
from lung_d2.errors import DatasetError

Spacing = tuple[float, float]

_SHOWN = 80  # characters of a name that is no name


def find_inside(folder: Path, name: object, where: str | Path) -> Path:
    """Return the path of a picture that an annotation file names, which must lie in a folder.

    Args:
        folder: The folder of the pictures.
        name: What the annotations say: a relative path with ``/``.
        where: File and record that messages name.

    Raises:
        DatasetError: There is none, its name leads elsewhere (see :func:`path_inside`), or a link leads out of the
            folder.
    """
    path = path_inside(folder, name, where)
    if not path.is_file():
        raise DatasetError(
            where, found=f"no picture {path}", remedy="name the folder of the pictures by --images, or add the file"
        )
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(
            where,
            found=f"picture {name}, a link that leads out of {folder}",
            remedy="put the picture itself there, or name its folder by --images",
        )
    return path


def path_inside(folder: Path, name: object, where: str | Path) -> Path:
    r"""Return the path in a folder that a name stands for; nothing need be there.

    Args:
        folder: The folder of the pictures.
        name: What the annotations say.
        where: File and record that messages name.

    Raises:
        DatasetError: The name is none, is absolute, or holds ``..`` or ``\``.
    """
    finding = _unsafe(name)
    if finding:
        raise DatasetError(
            where,
            found=f"{finding} {str(name)[:_SHOWN]!a}",
            expected="a file name or a path below the folder of the pictures",
            remedy="correct it, or export again with relative names; or name the folder of the pictures by --images",
        )
    return folder / str(name)


def _unsafe(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        return "no file name:"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        return "the absolute path"
    if ".." in PureWindowsPath(name).parts:
        return "a path that leads upwards:"
    return "a path with backslashes:" if "\\" in name else ""


def list_pictures_below(folder: Path) -> list[Path]:
    """List the pictures of a folder and of those below it, by path; hidden files and folders hold none."""
    return [path for path in files_below(folder) if path.suffix.lower() in PICTURES]


def list_slice_files(folder: Path) -> list[Path]:
    """List what :func:`read_slice_file` reads, in a folder and those below it, by path."""
    return [path for path in files_below(folder) if path.suffix.lower() in PICTURES or is_dicom_slice(path)]


def files_below(folder: Path) -> list[Path]:
    """List the files of a folder and of those below it, by path, but for hidden ones; links are followed.

    Raises:
        DatasetError: A folder cannot be opened.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(place)
        # A link to a folder above would go round for ever.
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            found += [Path(place, name) for name in files if not name.startswith(".")]
        seen.add(real)
    return sorted(path for path in found if path.is_file())


def _refuse(error: OSError) -> None:
    raise DatasetError(error.filename, found="a folder that cannot be opened", remedy="check its permissions")


def read_slice_file(path: Path) -> tuple[npt.NDArray[np.generic], Spacing | None]:
    """Read the picture of a slice, or a DICOM file of one slice.

    Returns:
        uint8 ``(H, W)`` in grey and None; or int16 in HU and the spacing of rows and columns in mm.

    Raises:
        InputError: It is no picture in 8-bit grey levels and no CT slice.
    """
    if not is_dicom_slice(path):
        return read_picture(path), None
    from lung_d2.ct.volume import read_volume  # here: it loads more than pictures need

    volume = read_volume(path)
    if len(volume.hu) != 1:
        raise DatasetError(path, found=f"{len(volume.hu)} slices", expected="one", remedy="write each as a file")
    return volume.hu[0], (volume.spacing_mm[1], volume.spacing_mm[2])


def is_dicom_slice(path: Path) -> bool:
    """Tell a DICOM file from a picture."""
    return path.suffix.lower() not in PICTURES and is_dicom(path)


def check_size(shape: tuple[int, ...], height: object, width: object, where: str | Path) -> None:
    """Compare a picture with the size that its annotations were drawn on; None or 0: they do not say.

    Raises:
        DatasetError: They differ.
    """
    stated = (height or shape[0], width or shape[1])
    if stated != tuple(shape):
        raise DatasetError(
            where,
            found=f"annotations of a picture of {stated[0]} x {stated[1]}",
            expected=f"{shape[0]} x {shape[1]} (rows x columns), its picture's size",
            remedy="give the picture that was annotated",
        )
