"""Prepared data sets in Detectron2's catalogs."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.data.dataset import DATASETS_FOLDER, datasets_root
from lung_d2.errors import DatasetError

logger = logging.getLogger(__name__)

_HEAD_LETTERS = 2**16
_EXTRA_IMAGE_KEYS = ("hu", "pixel_spacing_mm", "slice_position_mm", "slice_index", "patient", "series")


def register_lung_datasets(root: str | Path | None = None) -> list[str]:
    """Register every data set prepared under ``root`` as ``NAME_SPLIT``, e.g. ``covid_slices_val``.

    Registering again is harmless: a data set of the same name is replaced.

    Args:
        root: Folder of data sets; None takes ``DETECTRON2_DATASETS``, else ``datasets``, as Detectron2 does.

    Returns:
        The names registered, sorted.
    """
    folder = datasets_root(root) / DATASETS_FOLDER
    names = []
    for json_file in sorted(folder.glob("[!.]*/annotations/*.json")):
        name = f"{json_file.parent.parent.name}_{json_file.stem}"
        _register_split(name, json_file)
        names.append(name)
    logger.info("data sets in %s: %s", folder, ", ".join(names) or "none")
    return names


def check_registered(names: tuple[str, ...] | list[str]) -> None:
    """Raise :class:`DatasetError` where a data set of the config was not prepared."""
    known = set(DatasetCatalog.list())
    for name in names:
        if name not in known:
            raise DatasetError(
                f"data set {name}",
                found="not prepared",
                expected="a folder of it under DETECTRON2_DATASETS (else ./datasets)",
                remedy="run tools/prepare_dataset.py, or correct DATASETS.TRAIN / DATASETS.TEST",
            )


def _register_split(name: str, json_file: Path) -> None:
    image_root = json_file.parent.parent / "images"
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():  # weights that were tested on it may have described its classes
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: load_lung_json(json_file, image_root, name))
    categories = _read_categories(json_file)
    MetadataCatalog.get(name).set(
        json_file=str(json_file),
        image_root=str(image_root),
        evaluator_type="coco",
        categories=categories,
        thing_classes=categories.names,
        thing_dataset_id_to_contiguous_id=categories.numbers,
        thing_colors=[category.color for category in categories],
    )


def _read_categories(json_file: Path) -> Categories:
    """Read the categories of a split, which stand at the head of its file; the defaults if that is broken.

    A broken file is refused when it is loaded, by :func:`load_lung_json`.
    """
    try:
        with json_file.open(encoding="utf-8") as file:
            head = file.read(_HEAD_LETTERS)
        match = re.search(r'"categories":\s*', head)
        if not match or '"images"' in head[: match.start()]:
            return Categories.from_coco(json.loads(json_file.read_text(encoding="utf-8"))["categories"], json_file)
        return Categories.from_coco(json.JSONDecoder().raw_decode(head, match.end())[0], json_file)
    except (OSError, ValueError, KeyError, TypeError, DatasetError):
        return CATEGORIES


def _check_categories(categories: Categories, annotations: list[dict[str, Any]], json_file: Path, name: str) -> None:
    registered = MetadataCatalog.get(name).get("categories", categories)
    if categories != registered:
        raise DatasetError(
            json_file, found=str(categories), expected=f"{registered}, as registered", remedy="register it again"
        )
    unknown = {annotation["category_id"] for annotation in annotations} - set(categories.numbers)
    if unknown:
        raise DatasetError(
            json_file,
            found=f"annotations of category_id {min(unknown)}",
            expected=f"one of {', '.join(map(str, categories.numbers))}",
            remedy="prepare it again",
        )


def load_lung_json(json_file: Path, image_root: Path, name: str) -> list[dict[str, Any]]:
    """Load a split as Detectron2 dataset dicts, with what ``load_coco_json`` leaves out added by image id.

    Returns:
        Dataset dicts with ``hu``, ``pixel_spacing_mm``, ``slice_position_mm``, ``slice_index``, ``patient``,
        ``series`` and, where the source has them, ``neighbours`` as paths.

    Raises:
        DatasetError: The JSON or its categories are broken.
    """
    try:
        content = json.loads(json_file.read_text())
        extra = {image["id"]: {key: image[key] for key in _EXTRA_IMAGE_KEYS} for image in content["images"]}
        neighbours = {image["id"]: image["neighbours"] for image in content["images"] if "neighbours" in image}
        categories, _ = content["categories"], content["annotations"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            json_file, found=f"no COCO JSON ({type(error).__name__})", remedy="prepare the data set again"
        ) from error
    _check_categories(Categories.from_coco(categories, json_file), content["annotations"], json_file, name)
    records: list[dict[str, Any]] = load_coco_json(str(json_file), str(image_root), name)
    for record in records:
        record.update(extra[record["image_id"]])
        if record["image_id"] in neighbours:
            record["neighbours"] = [str(image_root / file_name) for file_name in neighbours[record["image_id"]]]
    return records
