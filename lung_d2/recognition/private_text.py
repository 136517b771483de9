"""Messages without the names of files and folders, which often hold those of patients."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

HIDDEN = "(path)"


def hide_paths(text: str, paths: Iterable[Path]) -> str:
    """Return a text without paths.

    Args:
        text: A message of ours.
        paths: Files and folders that it may name: by their whole path, that of a folder above them, or by the file's
            name alone.
    """
    names: set[str] = set()
    for path in paths:
        for one in (path, *path.parents, path.resolve(), *path.resolve().parents):
            names.add(str(one))
        names |= {path.name} if len(path.name) > 3 else set()  # "12" would hide numbers
    longest_first = sorted(names - {"", ".", "/"}, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)(?:/[^\s;,]*)?", HIDDEN, text) if pattern else text
