"""Files and folders that stand under their name whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lung_d2.errors import OutputError


def create_folder(folder: Path) -> None:
    """Create a folder for output, with its parents, where it is not there.

    Raises:
        OutputError: It cannot be created, is a file, or may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        found = "a file" if folder.is_file() else f"cannot be created ({_reason(error)})"
        raise OutputError(folder, found=found, expected="a folder for output", remedy="name another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(folder, found="a folder that may not be written to", remedy="check its permissions")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all; what is there stays until the new one is whole.

    Args:
        path: Replaced where it exists.

    Yields:
        What to write to instead, in the same folder. Its name is short, however long that of the file is.

    Raises:
        OutputError: It cannot be written.
    """
    temporary = path.with_name(f".{hash_identity('file', path.name)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        found = f"cannot be written ({_reason(error)})"
        raise OutputError(path, found=found, remedy="check the disk space and the permissions") from error
    finally:
        with suppress(OSError):  # as where the folder is none
            temporary.unlink(missing_ok=True)


def write_text(text: str | Iterable[str], path: Path) -> None:
    """Write a text file, whole or not at all; folders that miss are made.

    Args:
        text: What to write, whole or in parts.
        path: Replaced where it exists.

    Raises:
        OutputError: It cannot be written.
    """
    with replace_file(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            stream.writelines([text] if isinstance(text, str) else text)


def write_json(content: Any, path: Path, *, indent: int | None = None) -> None:
    """Write a JSON file, whole or not at all; folders that miss are made."""
    write_text(json.dumps(content, indent=indent), path)


def replace_folder(staging: Path, final: Path) -> None:
    """Give a finished folder its final name, in place of an earlier one.

    A kill at any moment leaves the earlier one or the new one, whole: under the final name, or aside, from where
    :func:`restore_folder` brings it back.
    """
    aside = _aside(final)
    if final.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(final, aside)
    os.replace(staging, final)
    shutil.rmtree(aside, ignore_errors=True)


def restore_folder(final: Path) -> None:
    """Bring back what a killed :func:`replace_folder` left aside."""
    if not final.exists() and _aside(final).is_dir():
        os.replace(_aside(final), final)


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _reason(error: OSError | ValueError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__


def hash_identity(kind: str, value: str) -> str:
    """Hash a patient id or UID to 16 hexadecimal digits, fit for a file name.

    Args:
        kind: ``"patient"`` or ``"series"``: the same value of another kind gets another hash.
        value: The identity; of a damaged file it may hold what is no text.
    """
    return hashlib.sha256(f"{kind}\0{value}".encode("utf-8", "backslashreplace")).hexdigest()[:16]
