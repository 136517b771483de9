"""The text headers of NRRD and MetaImage files, checked before ITK reads them.

ITK's readers trust these headers: a data file may be any file of the machine, or standard input. The NRRD reader takes
a file without orientation for LPS, any unit for mm, what is not a gzip stream for raw data, and ignores checksums. The
MetaImage reader crashes on a negative number of dimensions, takes the next line for the rest of a list that is too
short, ignores units and scales, and returns whatever lies in memory if a compressed stream is damaged or ends early.

The formats: https://teem.sourceforge.net/nrrd/format.html, https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import logging
import re
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from lung_d2.ct.geometry import no_orientation
from lung_d2.ct.headers import show_code
from lung_d2.ct.planes import MAX_SPACING_MM
from lung_d2.errors import GeometryError, InputError

MAX_HEADER_BYTES = 2**20
"""Longest header that is read: those with the segments of 3D Slicer have some kilobytes."""
DEFLATE_RATIO = 1032
"""Deflate shortens no data by more than this factor (zlib's technical notes: 1032:1)."""
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_CHUNK_BYTES = 2**14
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


@dataclass(frozen=True)
class VoxelData:
    """Where the voxels of a file lie, and how.

    Attributes:
        path: The file that holds them: the header's own, or one beside it.
        offset: Bytes before them at least.
        coding: ``"raw"``, ``"text"``, ``"gzip"`` (one stream or several) or ``"zlib"`` (one, with either frame).
        stored: Bytes of them in the file; None where they end with it.
    """

    path: Path
    offset: int
    coding: str = "raw"
    stored: int | None = None

    def check(self, size: int, header: Path) -> None:
        """Refuse voxels that are fewer than declared, or a damaged stream of them.

        Args:
            size: Bytes that they should have in memory.
            header: The file that messages name.

        Raises:
            InputError: They are fewer, or damaged.
            OSError: They cannot be read.
        """
        there = self.path.stat().st_size - self.offset
        stored = there if self.stored is None else self.stored
        if stored > there or stored * (1 if self.coding == "raw" else DEFLATE_RATIO) < size:
            raise InputError(header, found="shorter than declared", expected="a whole file", remedy="copy it again")
        if self.coding in ("gzip", "zlib") and not self._is_sound(stored, size):
            raise InputError(
                header, found="a damaged compressed stream", expected="a whole file", remedy="copy or export it again"
            )

    def _is_sound(self, stored: int, size: int) -> bool:
        """Tell whether the stream is whole, with the right checksum, and holds exactly this many bytes."""
        inflater, length, chunk = _inflater(), 0, b""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            while length <= size:
                if not chunk:
                    chunk = file.read(min(stored, _CHUNK_BYTES))
                    stored -= len(chunk)
                if not chunk:
                    return False
                try:
                    length += len(inflater.decompress(chunk))
                except zlib.error:
                    return False
                chunk = inflater.unused_data
                if inflater.eof and (length >= size or self.coding == "zlib"):
                    return length == size
                inflater = _inflater() if inflater.eof else inflater
        return False


def _inflater() -> zlib._Decompress:
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either frame, zlib's or gzip's


def read_text(path: Path, last_line: bytes, kind: str) -> tuple[list[str], int]:
    """Read the lines of a text header.

    Args:
        path: The file.
        last_line: Regular expression of the end of the header.
        kind: What messages call the format.

    Returns:
        The lines, without their ends, and the length of the header in bytes.

    Raises:
        InputError: It has no end, or bytes that no text has.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        start = file.read(MAX_HEADER_BYTES)
    match = re.search(last_line, start)
    if match is None and len(start) == MAX_HEADER_BYTES:
        raise damaged_header(path, kind, "its header has no end")
    end = match.end() if match else len(start)
    text = start[:end].replace(b"\r\n", b"\n")
    # Readers differ in whether a carriage return alone ends a line: what one skips is a field to the other.
    if b"\r" in text or b"\0" in text:
        raise damaged_header(path, kind, "its header is not text")
    return text.decode("utf-8", "surrogateescape").split("\n"), end


def data_file(name: str, header: Path) -> Path:
    """Return the data file that a header names.

    Raises:
        InputError: It is missing, outside the folder of the header, or one of several.
    """
    place = PureWindowsPath(name)  # It knows the separators of every system.
    if place.drive or place.root or ".." in place.parts:
        raise InputError(
            header,
            found=f"a data file elsewhere, {name!a}",
            expected="one in the folder of the header",
            remedy="put it beside the header and name it so",
        )
    if name in ("", "-") or "%" in name or name.upper().startswith("LIST"):
        raise InputError(
            header,
            found="voxels that are not in one data file",
            expected="one file",
            remedy="save it as .nrrd, .mha or .nii.gz",
        )
    path = header.parent / name
    if not path.is_file():
        raise InputError(
            header, found=f"its data file {name!a} is missing", remedy="put header and data into one folder"
        )
    return path


def are_numbers(words: Iterable[str], limit: float = sys.float_info.max) -> bool:
    """Tell whether these are finite numbers, none of them beyond a limit, as C and Python alike write them."""
    return all(re.fullmatch(_NUMBER, word) and abs(float(word)) <= limit for word in words)


def damaged_header(path: Path, kind: str, finding: str) -> InputError:
    """Return the error of a header that is none."""
    return InputError(
        path, found=f"damaged or no {kind} file: {finding}", expected="a whole file", remedy="copy or export it again"
    )


def describe_dimensions(text: str) -> str:
    """Say how many dimensions a header states, whatever the field holds."""
    return f"{text if re.fullmatch('[1-9]|1[0-6]', text) else 'an unknown number of'} dimensions"


def not_scalar_3d(path: Path, finding: str) -> InputError:
    """Return the error of a file with more, or fewer, than one number for each voxel of a 3-D grid."""
    return InputError(
        path, found=finding, expected="3-D with one number a voxel", remedy="save one volume or label map alone"
    )


def not_in_mm(path: Path) -> InputError:
    """Return the error of a file with another unit of length, which ITK reads as mm."""
    return InputError(path, found="another unit of length", expected="mm", remedy="export it again in mm")


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
    fields = _nrrd_fields(lines[1:])
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


def _nrrd_fields(lines: list[str]) -> dict[str, str]:
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
        raise not_scalar_3d(path, finding + (f", of which some are not space ({', '.join(others)})" if others else ""))
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
            found="space directions that are not vectors",
            expected=f"numbers up to {MAX_SPACING_MM:g} mm",
            remedy="export the file again",
        )
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    if not MILLIMETRES.issuperset(unit.strip().lower() for unit in units):
        raise not_in_mm(path)


def check_meta_header(path: Path) -> VoxelData:
    """Check the header of a MetaImage file, and say where its voxels are.

    Raises:
        GeometryError: It has no spacing.
        InputError: It is damaged or not 3-D, or its voxels are where they must not be.
        OSError: It cannot be read.
    """
    lines, end = read_text(path, _LAST_LINE, "MetaImage")
    fields = _meta_fields(lines, path)
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


def _meta_fields(lines: list[str], path: Path) -> dict[str, str]:
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
            path, found="values with a scale, which readers ignore", expected="HU", remedy="apply it and save again"
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
