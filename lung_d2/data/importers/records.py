"""Read the JSON files of annotation tools, which may hold anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lung_d2.errors import DatasetError

T = TypeVar("T")

Record = Mapping[str, Any]

_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number", float: "a number"}


def read_json(path: Path, what: str) -> Record:
    """Read a JSON object.

    Args:
        path: The file; UTF-8, with or without a byte order mark.
        what: What messages say that it should be.

    Raises:
        DatasetError: It cannot be opened, is broken, or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DatasetError(
            path, found="cannot be opened", expected=what, remedy="check the path and its permissions"
        ) from error
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        raise DatasetError(path, found="broken JSON", expected=what, remedy="export it again") from error
    if not isinstance(content, dict):
        raise DatasetError(path, found=f"a JSON {type(content).__name__}", expected=what, remedy="give another file")
    return content


def take(record: Record, key: str, kind: type[T], where: str | Path) -> T:
    """Return a value that a record must have.

    Raises:
        DatasetError: It is missing or of another type.
    """
    value = record.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = f"{type(value).__name__} as {key!r}" if key in record else f"no {key!r}"
        raise DatasetError(where, found=found, expected=_NAMES[kind], remedy="correct it, or export it again")
    return value


def take_objects(record: Record, key: str, where: str | Path) -> list[dict[str, Any]]:
    """Return a list of objects that a record must have.

    Raises:
        DatasetError: It is missing, no list, or holds something else.
    """
    values = take(record, key, list, where)
    for number, value in enumerate(values):
        if not isinstance(value, dict):
            raise DatasetError(
                where,
                found=f"{type(value).__name__} as item {number} of {key!r}",
                expected="objects",
                remedy="correct it, or export it again",
            )
    return values
