"""Registered data sets as sources of truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from lung_d2.data.register import check_registered
from lung_d2.errors import DatasetError
from lung_d2.evaluation.truth import Source


def find_sources(names: Sequence[str]) -> list[Source]:
    """Return the sources of registered data sets.

    Raises:
        DatasetError: One was not prepared.
    """
    check_registered(list(names))
    found = [(name, MetadataCatalog.get(name)) for name in names]
    return [Source(name, Path(metadata.json_file), Path(metadata.image_root)) for name, metadata in found]


def check_folder(results: Path, name: str) -> None:
    """Refuse results in a folder that an evaluation named after another data set.

    Image ids alone do not tell: those of most data sets begin at 1.

    Args:
        results: The results file, as ``OUTPUT_DIR/inference/NAME/coco_instances_results.json``.
        name: The data set that they are measured on.

    Raises:
        DatasetError: The folder is named like another registered data set.
    """
    folder = results.resolve().parent.name
    if folder != name and folder in DatasetCatalog.list():
        raise DatasetError(
            results,
            found=f"results of {folder}, by the name of their folder",
            expected=f"results of {name}",
            remedy=f"give --dataset {folder}, or move the file",
        )
