"""Files and folders that are written whole or not at all; hashes of content; pseudonyms of patients."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lung_d2.errors import DatasetError, OutputError

KEY_BYTES = 32


def create_folder(folder: Path) -> None:
    """Create a folder for output, with its parents, if it does not exist.

    Raises:
        OutputError: The folder cannot be created, is a file, or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        found = "a file" if folder.is_file() else f"cannot be created ({_reason(error)})"
        raise OutputError(folder, found=found, expected="a folder for output", remedy="name another") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(folder, found="a folder that is not writable", remedy="check its permissions")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all; an existing file stays until the new one is complete.

    Args:
        path: Replaced if it exists.

    Yields:
        A temporary path in the same folder to write to. Its name is short, however long the file's own name is.

    Raises:
        OutputError: The file cannot be written.
    """
    temporary = path.with_name(f".{hash_content(path.name)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        found = f"cannot be written ({_reason(error)})"
        raise OutputError(path, found=found, remedy="check the disk space and the permissions") from error
    finally:
        with suppress(OSError):  # the folder may not exist
            temporary.unlink(missing_ok=True)


def write_text(text: str | Iterable[str], path: Path) -> None:
    """Write a text file, whole or not at all; missing folders are created.

    Args:
        text: The text, whole or in parts.
        path: Replaced if it exists.

    Raises:
        OutputError: The file cannot be written.
    """
    with replace_file(path) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            stream.writelines([text] if isinstance(text, str) else text)


def write_json(content: Any, path: Path, *, indent: int | None = None) -> None:
    """Write a JSON file, whole or not at all; missing folders are created."""
    write_text(json.dumps(content, indent=indent), path)


def replace_folder(staging: Path, final: Path) -> None:
    """Give a finished folder its final name, in place of an earlier one.

    If the process is killed, the earlier or the new folder is left whole: under its final name, or aside, from where
    :func:`restore_folder` brings it back.
    """
    aside = _aside(final)
    if final.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(final, aside)
    os.replace(staging, final)
    shutil.rmtree(aside, ignore_errors=True)


def restore_folder(final: Path) -> None:
    """Bring back the earlier folder that a killed :func:`replace_folder` left aside."""
    if not final.exists() and _aside(final).is_dir():
        os.replace(_aside(final), final)


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}.old")


def _reason(error: OSError | ValueError) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__


def hash_content(content: str) -> str:
    """Hash text, such as options or the names of files, to 16 hexadecimal digits. This hides nothing.

    Args:
        content: Any text; lone surrogates, as in names of damaged files, are allowed.
    """
    return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def hash_file_stats(files: Iterable[Path]) -> str:
    """Hash path, size and modification time of files, without reading them.

    Raises:
        DatasetError: A file does not exist.
    """
    lines = []
    for path in files:
        try:
            stat = path.stat()
        except OSError as error:
            raise DatasetError(path, found="cannot be opened", remedy="check the path and its permissions") from error
        lines.append(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}")
    return hash_content("files\0" + "\n".join(lines))


def hash_identity(kind: str, value: str) -> str:
    """Hash the identity of a patient or series to 16 hexadecimal digits, fit for a file name.

    The hash is not keyed: whoever can list all possible values, such as short patient ids, can find the value. It names
    the folders of recognition results, after the series' UID, and tells patients apart in memory. What is stored of a
    patient is a :func:`pseudonym`.

    Args:
        kind: ``"patient"`` or ``"series"``: the same value of another kind has another hash.
        value: The identity; lone surrogates, as in damaged files, are allowed.
    """
    return hash_content(f"{kind}\0{value}")


def pseudonym(kind: str, value: str, key: bytes) -> str:
    """Return the name that stands for a patient or series in a data set: 16 hexadecimal digits.

    This is an HMAC-SHA-256. Without the key, not even a value that is easily guessed can be checked. Under another key
    the same patient has another pseudonym: patients of two data sets can be compared only if both have the same key.

    Args:
        kind: ``"patient"`` or ``"series"``: the same value of another kind has another pseudonym.
        value: The identity, or a hash of it.
        key: Secret of the data set, see :func:`read_key`.
    """
    message = f"{kind}\0{value}".encode("utf-8", "backslashreplace")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:16]


def create_key() -> bytes:
    """Return a new random key for :func:`pseudonym`."""
    return secrets.token_bytes(KEY_BYTES)


def read_key(path: Path) -> bytes:
    """Read a key for :func:`pseudonym`.

    Raises:
        DatasetError: The file is missing or is not a key.
    """
    try:
        key = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            path, found=f"cannot be read ({_reason(error)})", expected="a pseudonym.key", remedy="correct the path"
        ) from error
    if len(key) != KEY_BYTES:
        raise DatasetError(
            path,
            found=f"{len(key)} bytes",
            expected=f"a key of {KEY_BYTES}",
            remedy="name the pseudonym.key of a data set",
        )
    return key


def write_key(key: bytes, path: Path) -> None:
    """Write a key that only its owner may read (mode 0600).

    Raises:
        OutputError: The file cannot be written.
    """
    with replace_file(path) as temporary:
        temporary.unlink(missing_ok=True)  # its mode would stay
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(key)
