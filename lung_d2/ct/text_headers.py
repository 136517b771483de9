"""The text headers of NRRD and MetaImage files, and the voxels that they point at.

ITK's readers trust these headers: a data file may be any file of the machine, or standard input; lengths and damaged
streams are believed. So they are checked here first, and by ``nrrd_header`` and ``meta_header``.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from lung_d2.errors import InputError

MAX_HEADER_BYTES = 2**20
"""Longest header that is read: those with the segments of 3D Slicer have some kilobytes."""
DEFLATE_RATIO = 1032
"""Deflate shortens no data by more than this factor (zlib's technical notes: 1032:1)."""
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_CHUNK_BYTES = 2**14


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
        raise damaged_header(path, kind, "its header is no text")
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
