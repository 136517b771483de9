"""What comes in from a browser, checked before it is believed: sizes, counts, and the entries of an archive."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lung_d2.errors import InputError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The most that is taken from one request.

    Attributes:
        upload_mb: Size of the request.
        unpacked_mb: Size of what an archive holds.
        files: Number of files.
        ratio: By how much an archive may be smaller than what it holds; pixels compress less than tenfold.
    """

    upload_mb: float = 4096.0
    unpacked_mb: float = 8192.0
    files: int = 20_000
    ratio: float = 200.0


def unpack_zip(archive: Path, folder: Path, limits: Limits) -> Iterator[Path]:
    """Unpack an archive file by file; the names in it are checked and then forgotten.

    Args:
        archive: A ZIP file.
        folder: Where the files go, under numbers.
        limits: The most that it may hold.

    Yields:
        Each file. It may be moved before the next one is asked for.

    Raises:
        InputError: It is damaged or encrypted, holds too much, or names places outside itself.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            _check(entries, archive.stat().st_size, limits)
            left = limits.unpacked_mb * _CHUNK
            for number, entry in enumerate(entry for entry in entries if not entry.is_dir()):
                path = folder / f"{number:06d}"
                left -= _unpack(opened, entry, path, left)
                yield path
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise _refuse("a damaged or encrypted archive", "a ZIP file", "pack it again, without a password") from error


def _check(entries: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    if len(entries) > limits.files:
        raise _refuse(f"{len(entries)} entries", f"at most {limits.files}", "pack one study")
    declared = sum(entry.file_size for entry in entries)
    if declared > limits.unpacked_mb * _CHUNK:
        raise _refuse(f"{declared >> 20} MB unpacked", f"at most {limits.unpacked_mb:g} MB", "pack one study")
    if declared > limits.ratio * max(size, 1):
        raise _refuse("an archive that unpacks to far more than images do", "a study", "pack the DICOM files alone")
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in (parts.parts or ("",))[0]:
            raise _refuse("an entry that leads out of the archive", "names inside it", "pack the study again")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise _refuse("a symbolic link", "files and folders", "pack the files themselves")


def _unpack(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left: float) -> int:
    written = 0
    with opened.open(entry) as source, open(path, "wb") as target:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > min(left, entry.file_size):  # a header may lie about the size
                raise _refuse("more data than the archive declares", "a sound ZIP file", "pack it again")
            target.write(chunk)
    return written


def _refuse(found: str, expected: str, remedy: str) -> InputError:
    return InputError("upload", found=found, expected=expected, remedy=remedy)
