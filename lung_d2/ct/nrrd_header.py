"""NRRD headers (https://teem.sourceforge.net/nrrd/format.html), checked before ITK reads the file.

ITK takes a file without orientation for LPS, and any unit for mm.
"""

from __future__ import annotations

import re
from pathlib import Path

from lung_d2.ct.headers import show_code
from lung_d2.ct.raw_volume import no_orientation
from lung_d2.ct.text_headers import (
    DEFLATE_RATIO,
    VoxelData,
    damaged_header,
    data_file,
    not_in_mm,
    not_scalar_3d,
    read_text,
)
from lung_d2.errors import InputError

SPACES = frozenset(
    {
        *("right-anterior-superior", "left-anterior-superior", "left-posterior-superior"),
        *("ras", "las", "lps"),
    }
)
"""Spaces that lie in the patient and have three axes; ITK brings each to LPS."""
ENCODINGS = frozenset({"raw", "gzip", "gz", "ascii", "text", "txt", "hex"})
"""What ITK's reader decodes; it notices where such data are damaged."""
OTHER_ENCODINGS = frozenset({"bzip2", "bz2", "zrl"})
SPACE_KINDS = frozenset({"domain", "space", "none", "???"})
OTHER_KINDS = frozenset({"list", "vector", "rgb-color", "rgba-color", "complex", "point", "normal", "time", "stub"})
MILLIMETRES = frozenset({"", "mm", "millimeter", "millimeters", "millimetre", "millimetres"})
_DIMENSIONS = frozenset("1234567")


def check_nrrd_header(path: Path) -> VoxelData:
    """Check the header of an NRRD file, and say where its voxels are.

    Raises:
        GeometryError: It does not say how its axes lie in the patient.
        InputError: It is damaged or not 3-D, or its voxels are where they must not be.
        OSError: It cannot be read.
    """
    lines, end = read_text(path, rb"\n\r?\n", "NRRD")
    if not lines[0].startswith("NRRD"):
        raise damaged_header(path, "NRRD", "it does not begin as one")
    fields = _fields(lines[1:])
    _check_array(fields, path)
    _check_space(fields, path)
    ratio = 1 if fields["encoding"].lower() == "raw" else DEFLATE_RATIO
    if "datafile" in fields:
        return VoxelData(data_file(fields["datafile"], path), 0, ratio)
    return VoxelData(path, end, ratio)


def _fields(lines: list[str]) -> dict[str, str]:
    """Return the fields by name, in small letters without blanks, as they are compared."""
    fields = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        # "key:=value" is a remark of the writer, and may hold anything.
        if colon and ":=" not in name and not line.startswith("#"):
            fields["".join(name.lower().split())] = value.strip()
    return fields


def _check_array(fields: dict[str, str], path: Path) -> None:
    for name in ("dimension", "sizes", "type", "encoding"):
        if name not in fields:
            raise damaged_header(path, "NRRD", f"no field {name!r}")
    kinds = fields.get("kinds", "").lower().split()
    others = sorted({show_code(kind, OTHER_KINDS) for kind in kinds if kind not in SPACE_KINDS})
    if fields["dimension"] != "3" or others:
        finding = f"{show_code(fields['dimension'], _DIMENSIONS)} dimensions"
        raise not_scalar_3d(path, finding + (f", of which some are no space ({', '.join(others)})" if others else ""))
    encoding = fields["encoding"].lower()
    if encoding not in ENCODINGS:
        found = f"encoding {show_code(encoding, OTHER_ENCODINGS)}"
        raise InputError(path, found=found, expected="raw or gzip", remedy="export it again so")


def _check_space(fields: dict[str, str], path: Path) -> None:
    if fields.get("space", "").lower() not in SPACES:
        raise no_orientation(path, "its space is not RAS, LAS or LPS")
    if "none" in fields.get("spacedirections", "none").lower():
        raise no_orientation(path, "an axis has no space direction")
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    if not MILLIMETRES.issuperset(unit.strip().lower() for unit in units):
        raise not_in_mm(path)
