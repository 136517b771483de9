"""The COCO JSON of a split, written a case at a time: the masks of a whole split would fill the memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lung_d2.categories import Categories
from lung_d2.data.cases import Case
from lung_d2.data.importing import Record, read_records
from lung_d2.files import write_text

_OURS = ("annotations", "facts", "source")
"""What a record holds that an image of COCO does not."""


def write_coco(
    description: str,
    categories: Categories,
    cases: Sequence[Case],
    staging: Path,
    ids: Mapping[str, int],
    names: Mapping[str, str],
    path: Path,
) -> None:
    """Write the annotation file of a split.

    Args:
        description: Of the split.
        categories: Of the data set.
        cases: All cases, in the order of the ids.
        staging: Where they were imported.
        ids: Image id of each file name that is in the split.
        names: Pseudonyms of patients and series; names that are not in it stay.
        path: Replaced if it exists.

    Raises:
        OutputError: It cannot be written.
    """
    write_text(_text(description, categories, cases, staging, ids, names), path)


def rename(content: Any, names: Mapping[str, str]) -> Any:
    """Return JSON content with other names for patients and series, alone, in file names and as words of a note."""
    if isinstance(content, str):
        first, slash, rest = content.partition("/")
        if first in names:
            return names[first] + slash + rest
        return re.sub(r"[^\s/]+", lambda word: names.get(word[0], word[0]), content)
    if isinstance(content, Mapping):
        return {key: rename(value, names) for key, value in content.items()}
    return [rename(value, names) for value in content] if isinstance(content, list | tuple) else content


def _text(
    description: str,
    categories: Categories,
    cases: Sequence[Case],
    staging: Path,
    ids: Mapping[str, int],
    names: Mapping[str, str],
) -> Iterator[str]:
    head = {
        "info": {"description": f"{description}, prepared by lung_d2"},
        "licenses": [],
        "categories": categories.to_coco(),
    }
    yield json.dumps(head)[:-1] + ', "images": ['
    for number, image in enumerate(_images(cases, staging, ids)):
        yield (", " if number else "") + json.dumps(rename(image, names))
    yield '], "annotations": ['
    for number, annotation in enumerate(_annotations(cases, staging, ids)):
        yield (", " if number else "") + json.dumps(annotation | {"id": number + 1})
    yield "]}"


def _images(cases: Sequence[Case], staging: Path, ids: Mapping[str, int]) -> Iterator[Record]:
    for record in _members(cases, staging, ids):
        own = {key: value for key, value in record.items() if key not in _OURS}
        yield {"id": ids[record["file_name"]]} | own


def _annotations(cases: Sequence[Case], staging: Path, ids: Mapping[str, int]) -> Iterator[Record]:
    for record in _members(cases, staging, ids):
        for annotation in record["annotations"]:
            yield annotation | {"image_id": ids[record["file_name"]]}


def _members(cases: Sequence[Case], staging: Path, ids: Mapping[str, int]) -> Iterator[Record]:
    series = {file_name.partition("/")[0] for file_name in ids}
    for case in cases:
        if case.series in series:
            yield from (record for record in read_records(case, staging) if record["file_name"] in ids)
