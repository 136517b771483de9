"""Where weights are from, as a weights file tells it, ready for JSON.

::

    name          of the weights
    date          of the export, UTC, YYYY-MM-DD
    source        weights (file name), sha256: the checkpoint that was exported
    data          a list: name; where the data set is prepared here also patients, series, slices,
                  slices_without_lesions, lesions and undecided by category
    iterations    of the training; null where the checkpoint does not say
    start         what the training started from: an address, a file name, or "random"
    start_licence, start_source
                  notice and origin that the weights carry from a start, as from the chest CT backbone; "" where none
    seed          null where it was drawn and is not known
    versions      of lung_d2, Python and what it stands on, at the export
    evaluations   a list: data (as above, names for name), results_sha256, figures: figure, category, value, low, high
                  (95 % over patients), patients
    licence, notes

A text with a path, or with an address that has a user, is refused: see :func:`names_place`; but for the notice,
which is kept word for word.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lung_d2.engine.weights.settings import names_place
from lung_d2.errors import CheckpointError, ConfigError, DatasetError
from lung_d2.evaluation.description import describe_truth
from lung_d2.evaluation.evaluate import SCHEMA_VERSION
from lung_d2.evaluation.headline import ROWS, shown_categories
from lung_d2.evaluation.json_values import is_number, is_whole
from lung_d2.evaluation.truth_reading import read_truth

if TYPE_CHECKING:
    from detectron2.config import CfgNode


RANDOM = "random"
_PUBLIC_SCHEME = "detectron2://"


@dataclass(frozen=True)
class Remarks:
    """What only the user knows of the weights.

    Attributes:
        evaluations: Files ``evaluation.json`` of these weights.
        licence: Under which they may be used.
        notes: Sentences, as the notices that a start's licence asks for.
    """

    evaluations: tuple[Path, ...] = ()
    licence: str = ""
    notes: tuple[str, ...] = ()


def build_provenance(
    name: str,
    cfg: CfgNode,
    weights: Path,
    checkpoint: Mapping[str, Any],
    versions: Mapping[str, str | None],
    remarks: Remarks,
) -> dict[str, Any]:
    """Gather where weights are from, see the module.

    Args:
        name: Of the weights.
        cfg: Config of the training; its ``MODEL.WEIGHTS`` is what the training started from.
        weights: The checkpoint.
        checkpoint: What it holds beside the model, as ``LungCheckpointer.load`` returns it.
        versions: By package.
        remarks: What the user adds.

    Raises:
        CheckpointError: The checkpoint cannot be read, or what it tells of its training is no whole number.
        ConfigError: A remark, or another text, names a place.
        DatasetError: An evaluation, or a data set that is there, is broken.
    """
    iteration = _whole_number(checkpoint, "iteration", weights)
    trainer = checkpoint.get("trainer")
    told = trainer if isinstance(trainer, Mapping) else {}
    seed = _whole_number({"seed": cfg.SEED, **told}, "seed", weights)
    content = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "source": {"weights": weights.name, "sha256": _digest(weights)},
        "data": [_describe_data(name) for name in cfg.DATASETS.TRAIN],
        "iterations": None if iteration is None else iteration + 1,
        "start": _describe_start(cfg.MODEL.WEIGHTS),
        "start_source": checkpoint.get("source", ""),
        "seed": None if seed is None or seed < 0 else seed,
        "versions": dict(versions),
        "evaluations": [_read_evaluation(path) for path in remarks.evaluations],
        "licence": remarks.licence,
        "notes": list(remarks.notes),
    }
    for text in _texts(content):
        if names_place(text):
            raise ConfigError(
                repr(text[:80]), found="a path, or an address with a user", remedy="leave it out of the weights"
            )
    return {**content, "start_licence": checkpoint.get("licence", "")}


def _whole_number(content: Mapping[str, Any], key: str, weights: Path) -> int | None:
    value = content.get(key)
    if value is None or is_whole(value):
        return value
    raise CheckpointError(
        weights,
        found=f"{key} {str(value)[:20]!r}",
        expected="a whole number",
        remedy="export a checkpoint of train_net.py",
    )


def _describe_start(weights: str) -> str:
    if not weights:
        return RANDOM
    if weights.startswith(_PUBLIC_SCHEME):
        return weights
    place = urlsplit(weights).path if "://" in weights else weights  # without a user, a key and a host
    return PurePath(place.replace("\\", "/")).name


def _describe_data(name: str) -> dict[str, Any]:
    from detectron2.data import DatasetCatalog

    from lung_d2.evaluation.catalog import find_sources

    if name not in DatasetCatalog.list():
        return {"name": name}
    return {"name": name, **_without_names(describe_truth(read_truth(find_sources([name]))))}


def _without_names(described: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key != "names"}


def _read_evaluation(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema {content['schema_version']}")
        figures = list(_list_figures(content))
        return {"data": content["data"], "results_sha256": content["results"]["sha256"], "figures": figures}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            path, found=f"no evaluation.json ({type(error).__name__}: {error})", remedy="run tools/evaluate.py again"
        ) from error


def _list_figures(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for row in ROWS:
        for category in shown_categories(content):
            figure = row.find(content["metrics"], category)
            if figure is not None and figure["value"] is not None:
                kept = {key: figure[key] for key in ("value", "low", "high", "patients")}
                if odd := [value for value in kept.values() if value is not None and not is_number(value)]:
                    raise ValueError(f"{row.label} {str(odd[0])[:20]!r}")
                yield {"figure": row.label, "category": category, **kept}


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _texts(value)
    elif isinstance(content, Sequence):
        for value in content:
            yield from _texts(value)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(path, found="cannot be read", remedy="check its path and permissions") from error
