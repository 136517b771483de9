"""The split that the name of a COCO file stands for."""

from __future__ import annotations

import re
from pathlib import Path

from lung_d2.errors import DatasetError

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_of_file(path: Path) -> str:
    """Return the split of ``instances_train2017.json``, ``val.json``, or ``test/_annotations.coco.json``.

    Returns:
        ``"train"``, ``"val"`` or ``"test"``: the one that the file's name holds as a word, else its folder's.

    Raises:
        DatasetError: Neither name holds one, or the file's name holds several.
    """
    for name in (path.stem, path.parent.name):
        found = {_SPLITS[word] for word in re.findall("[a-z]+", name.lower()) if word in _SPLITS}
        if len(found) == 1:
            return found.pop()
        if found:
            break
    raise DatasetError(
        path,
        found="a name of no split" if not found else "a name of several splits",
        expected="train, val or test in it, as in instances_train.json",
        remedy="rename it, or leave --splits-from-names out and give --split-file",
    )
