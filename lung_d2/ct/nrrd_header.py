"""NRRD headers (https://teem.sourceforge.net/nrrd/format.html), checked before ITK reads the file.

ITK takes a file without orientation for LPS, any unit for mm, and what is no gzip stream for raw data; it looks at no
checksum.
"""

from __future__ import annotations

import re
from pathlib import Path

from lung_d2.ct.headers import show_code
from lung_d2.ct.planes import MAX_SPACING_MM
from lung_d2.ct.raw_volume import no_orientation
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

SPACES = frozenset(
    {
        *("right-anterior-superior", "left-anterior-superior", "left-posterior-superior"),
        *("ras", "las", "lps"),
    }
)
"""Spaces that lie in the patient and have three axes; ITK brings each to LPS."""
ENCODINGS = {
    "raw": "raw",
    **dict.fromkeys(("gzip", "gz"), "gzip"),
    **dict.fromkeys(("ascii", "text", "txt", "hex"), "text"),
}
"""What ITK's reader decodes, by the names that the format has for it."""
OTHER_ENCODINGS = frozenset({"bzip2", "bz2", "zrl"})
SPACE_KINDS = frozenset({"domain", "space", "none", "???"})
HEADER_END = rb"\n\r?\n"
LAYER_KINDS = frozenset({"list", "vector"})
OTHER_KINDS = frozenset({"list", "vector", "rgb-color", "rgba-color", "complex", "point", "normal", "time", "stub"})
MILLIMETRES = frozenset({"", "mm", "millimeter", "millimeters", "millimetre", "millimetres"})


def check_nrrd_header(path: Path, *, layered: bool = False) -> VoxelData:
    """Check the header of an NRRD file, and say where its voxels are.

    Args:
        path: The file.
        layered: Whether an axis that lists several label maps may come before the three of space.

    Raises:
        GeometryError: It does not say how its axes lie in the patient.
        InputError: It is damaged or not 3-D, or its voxels are where they must not be.
        OSError: It cannot be read.
    """
    lines, end = read_text(path, HEADER_END, "NRRD")
    if not lines[0].startswith("NRRD"):
        raise damaged_header(path, "NRRD", "it does not begin as one")
    fields = _fields(lines[1:])
    for name in ("dimension", "sizes", "type", "encoding"):
        if name not in fields:
            raise damaged_header(path, "NRRD", f"no field {name!r}")
    if layered and fields["dimension"] == "4":
        fields = _without_list(fields)
    _check_array(fields, path)
    _check_space(fields, path)
    coding = ENCODINGS[fields["encoding"].lower()]
    if coding == "gzip" and any(fields.get(name, "0") != "0" for name in ("lineskip", "byteskip")):
        raise InputError(path, found="compressed data with a part to skip", expected="none", remedy="export it again")
    if "datafile" in fields:
        return VoxelData(data_file(fields["datafile"], path), 0, coding)
    return VoxelData(path, end, coding)


def _fields(lines: list[str]) -> dict[str, str]:
    """Return the fields by name, in small letters without blanks, as they are compared."""
    fields = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        # "key:=value" is a remark of the writer, and may hold anything.
        if colon and ":=" not in name and not line.startswith("#"):
            fields["".join(name.lower().split())] = value.strip()
    return fields


def _without_list(fields: dict[str, str]) -> dict[str, str]:
    """Return what the fields are for one layer, where the first axis lists them, which needs no direction.

    3D Slicer calls this axis a list, ITK a vector; both leave out its direction, which every axis of space has.
    """
    kind, _, kinds = fields.get("kinds", "").partition(" ")
    direction, _, directions = fields.get("spacedirections", "").partition(" ")
    if kind.lower() not in LAYER_KINDS or direction.lower() != "none":
        return fields
    return fields | {"dimension": "3", "kinds": kinds, "spacedirections": directions}


def _check_array(fields: dict[str, str], path: Path) -> None:
    kinds = fields.get("kinds", "").lower().split()
    others = sorted({show_code(kind, OTHER_KINDS) for kind in kinds if kind not in SPACE_KINDS})
    if fields["dimension"] != "3" or others:
        finding = describe_dimensions(fields["dimension"])
        raise not_scalar_3d(path, finding + (f", of which some are no space ({', '.join(others)})" if others else ""))
    encoding = fields["encoding"].lower()
    if encoding not in ENCODINGS:
        found = f"encoding {show_code(encoding, OTHER_ENCODINGS)}"
        raise InputError(path, found=found, expected="raw or gzip", remedy="export it again so")


def _check_space(fields: dict[str, str], path: Path) -> None:
    if fields.get("space", "").lower() not in SPACES:
        raise no_orientation(path, "its space is not RAS, LAS or LPS")
    words = re.findall(r"[^\s(),]+", fields.get("spacedirections", "none"))
    if "none" in words:
        raise no_orientation(path, "an axis has no space direction")
    # The length of a vector that overflows is 1 to ITK.
    if not are_numbers(words, MAX_SPACING_MM):
        raise GeometryError(
            path,
            found="space directions that are no vectors",
            expected=f"numbers up to {MAX_SPACING_MM:g} mm",
            remedy="export the file again",
        )
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    if not MILLIMETRES.issuperset(unit.strip().lower() for unit in units):
        raise not_in_mm(path)
