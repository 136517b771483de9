"""MetaImage headers (https://itk.org/Wiki/ITK/MetaIO/Documentation), checked before ITK reads the file.

ITK's reader crashes on a negative number of dimensions, takes the next line for the rest of a list that is too short,
reads over units and scales, and returns whatever lies in memory where a compressed stream is damaged or ends early.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from lung_d2.ct.text_headers import (
    VoxelData,
    are_numbers,
    damaged_header,
    data_file,
    describe_dimensions,
    not_in_mm,
    not_scalar_3d,
    read_text,
)
from lung_d2.errors import GeometryError, InputError

logger = logging.getLogger(__name__)

REQUIRED = ("NDims", "DimSize", "ElementType", "ElementDataFile")
COUNTS = {
    **dict.fromkeys(("HeaderSize", "CompressedDataSize", "ElementNumberOfChannels"), 1),
    **dict.fromkeys(("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset"), 1),
    **dict.fromkeys(("DimSize", "ElementSpacing", "ElementSize"), 3),
    **dict.fromkeys(("Offset", "Position", "Origin", "CenterOfRotation"), 3),
    **dict.fromkeys(("TransformMatrix", "Orientation", "Rotation"), 9),
}
"""How many numbers a field of a 3-D image has."""
SWITCHES = ("BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData")
DIRECTIONS = frozenset({"TransformMatrix", "Orientation", "Rotation"})
SPACINGS = frozenset({"ElementSpacing", "ElementSize"})
ATTACHED = frozenset({"LOCAL", "Local", "local"})
OTHER_UNITS = frozenset({"um", "cm"})

_LAST_LINE = rb"(?m)^[^\S\n]*ElementDataFile[^\S\n]*[=:][^\n]*\n?"


def check_meta_header(path: Path) -> VoxelData:
    """Check the header of a MetaImage file, and say where its voxels are.

    Raises:
        GeometryError: It has no spacing.
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
    if not fields.keys() & DIRECTIONS:
        logger.warning("%s: no TransformMatrix: its axes are taken for those of LPS, as the format has it", path)
    name = fields["ElementDataFile"]
    if name in ATTACHED:
        return _voxels(fields, path, path, end)
    return _voxels(fields, path, data_file(name, path), 0)


def _fields(lines: list[str], path: Path) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in filter(str.strip, lines):
        match = re.fullmatch(r"\s*([^=:]*?)\s*[=:]\s*(.*?)\s*", line)
        # ITK would take the next line for a part of it.
        if match is None or match[1] in fields:
            raise damaged_header(path, "MetaImage", "a line without a value, or a field given twice")
        fields[match[1]] = match[2]
    return fields


def _check_numbers(fields: dict[str, str], path: Path) -> None:
    if fields["NDims"] != "3":
        raise not_scalar_3d(path, describe_dimensions(fields["NDims"]))
    for name, count in COUNTS.items():
        texts = fields[name].split() if name in fields else ["0"] * count
        if len(texts) != count or not are_numbers(texts):
            found = f"{name} that is not {count} finite number{'s' if count > 1 else ''}"
            raise InputError(path, found=found, remedy="export the file again")


def _check_values(fields: dict[str, str], path: Path) -> None:
    if fields.get("ObjectType", "Image") != "Image":
        raise damaged_header(path, "MetaImage", "another object than an image")
    if _number(fields, "ElementNumberOfChannels", 1) != 1:
        raise not_scalar_3d(path, "several components a voxel")
    if not fields.keys() & SPACINGS:
        raise GeometryError(path, found="no ElementSpacing", expected="mm along each axis", remedy="export it with it")
    if fields.get("DistanceUnits", "").lower() in OTHER_UNITS:
        raise not_in_mm(path)
    slope, shift = (f"ElementToIntensityFunction{name}" for name in ("Slope", "Offset"))
    if _number(fields, slope, 1) != 1 or _number(fields, shift) != 0:
        raise InputError(
            path, found="values with a scale, which no reader heeds", expected="HU", remedy="apply it and save again"
        )
    for name in SWITCHES:
        if fields.get(name, "True").lower() not in ("true", "false", "1", "0"):
            raise damaged_header(path, "MetaImage", f"{name} is neither True nor False")
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
    return VoxelData(data, offset, "zlib", stored or None)


def _number(fields: dict[str, str], name: str, default: float = 0) -> float:
    return float(fields.get(name, default))


def _is_true(value: str) -> bool:
    return value.lower() in ("true", "1")
