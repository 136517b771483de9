"""Files and folders that stand under their name whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
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


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all; folders that miss are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


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
