"""MetaImage headers (https://itk.org/Wiki/ITK/MetaIO/Documentation), checked before ITK reads the file.

ITK's reader crashes on a negative number of dimensions, takes the next line for the rest of a list that is too short,
reads over units and scales, and returns whatever lies in memory where a compressed stream is damaged or ends early.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from lung_d2.ct.headers import show_code
from lung_d2.ct.text_headers import (
    VoxelData,
    damaged_header,
    data_file,
    not_in_mm,
    not_scalar_3d,
    read_text,
)
from lung_d2.errors import InputError

REQUIRED = ("NDims", "DimSize", "ElementType", "ElementDataFile")
COUNTS = {
    **dict.fromkeys(("HeaderSize", "CompressedDataSize", "ElementNumberOfChannels"), 1),
    **dict.fromkeys(("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"), 1),
    **dict.fromkeys(("DimSize", "ElementSpacing", "ElementSize"), 3),
    **dict.fromkeys(("Offset", "Position", "Origin", "CenterOfRotation"), 3),
    **dict.fromkeys(("TransformMatrix", "Orientation", "Rotation"), 9),
}
"""How many numbers a field of a 3-D image has."""
ATTACHED = frozenset({"LOCAL", "Local", "local"})
OTHER_UNITS = frozenset({"um", "cm"})

_LAST_LINE = rb"(?m)^[^\S\n]*ElementDataFile[^\S\n]*[=:][^\n]*\n?"
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_DIMENSIONS = frozenset("1234567")


def check_meta_header(path: Path) -> VoxelData:
    """Check the header of a MetaImage file, and say where its voxels are.

    Raises:
        InputError: It is damaged or not 3-D, or its voxels are where they must not be.
        OSError: It cannot be read.
    """
    lines, end = read_text(path, _LAST_LINE, "MetaImage")
    fields = _fields(lines, path)
    for name in REQUIRED:
        if name not in fields:
            raise damaged_header(path, "MetaImage", f"no field {name!r}")
    _check_numbers(fields, path)
    _check_values(fields, path)
    name = fields["ElementDataFile"]
    if name in ATTACHED:
        return _voxels(fields, path, path, end)
    return _voxels(fields, path, data_file(name, path), 0)


def _fields(lines: list[str], path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        if match := re.fullmatch(r"\s*([^=:]*?)\s*[=:]\s*(.*?)\s*", line):
            name, value = match.groups()
            if name in fields:
                raise damaged_header(path, "MetaImage", "a field given twice")
            fields[name] = value
    return fields


def _check_numbers(fields: dict[str, str], path: Path) -> None:
    if fields["NDims"] != "3":
        raise not_scalar_3d(path, f"{show_code(fields['NDims'], _DIMENSIONS)} dimensions")
    for name, count in COUNTS.items():
        texts = fields[name].split() if name in fields else ["0"] * count
        if len(texts) != count or not all(re.fullmatch(_NUMBER, text) and math.isfinite(float(text)) for text in texts):
            found = f"{name} that is not {count} finite number{'s' if count > 1 else ''}"
            raise InputError(path, found=found, remedy="export the file again")


def _check_values(fields: dict[str, str], path: Path) -> None:
    if fields.get("ObjectType", "Image") != "Image":
        raise damaged_header(path, "MetaImage", "another object than an image")
    if _number(fields, "ElementNumberOfChannels", 1) != 1:
        raise not_scalar_3d(path, "several components a voxel")
    if fields.get("DistanceUnits", "").lower() in OTHER_UNITS:
        raise not_in_mm(path)
    if _number(fields, "ElementToIntensityFunctionSlope", 1) != 1 or _number(
        fields, "ElementToIntensityFunctionOffset"
    ):
        raise InputError(
            path, found="values with a scale, which no reader heeds", expected="HU", remedy="apply it and save again"
        )
    if not _is_true(fields.get("BinaryData", "True")):
        raise InputError(path, found="voxels as text", expected="binary data", remedy="export it again so")


def _voxels(fields: dict[str, str], path: Path, data: Path, offset: int) -> VoxelData:
    skipped, stored = int(_number(fields, "HeaderSize")), int(_number(fields, "CompressedDataSize"))
    compressed = _is_true(fields.get("CompressedData", "False"))
    # -1 says that the voxels end with the file.
    if skipped < -1 or (skipped > 0 and (compressed or data == path)):
        raise damaged_header(path, "MetaImage", "HeaderSize where nothing is skipped")
    if not compressed:
        return VoxelData(data, offset + max(skipped, 0))
    if stored < 0 or (stored == 0 and data == path):
        raise damaged_header(path, "MetaImage", "no CompressedDataSize")
    return VoxelData(data, offset, stream_size=stored or data.stat().st_size)


def _number(fields: dict[str, str], name: str, default: float = 0) -> float:
    return float(fields.get(name, default))


def _is_true(value: str) -> bool:
    """Tell what ITK takes for true: it looks at the first letter alone."""
    return value[:1] in ("T", "t", "1")
