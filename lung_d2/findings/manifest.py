"""The manifest of a run: model, versions, times; without names of the user, the machine or its folders."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lung_d2 import __version__
from lung_d2.errors import CheckpointError

_MOST_LETTERS = 100
MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
PACKAGES = (
    *("torch", "torchvision", "detectron2"),
    *("highdicom", "pydicom", "SimpleITK", "nibabel"),
    *("numpy", "scipy", "opencv-python", "pycocotools"),
)
"""Packages whose version may change a result or a file."""


@dataclass(frozen=True)
class ModelIdentity:
    """The model that was run.

    Attributes:
        config_sha256: Of the config's text.
        weights_sha256: Of the file of the weights.
        device: What it ran on, as ``cpu`` or ``cuda (NVIDIA H200)``.
        name: Of the weights, from their file; empty if it has none.
        data: Names of the data sets that the weights were trained on, likewise.
        iterations: Of the training; None if unknown.
    """

    config_sha256: str
    weights_sha256: str
    device: str
    name: str = ""
    data: tuple[str, ...] = ()
    iterations: int | None = None


def identify_model(config_text: str, weights: Path, device: str, provenance: str = "") -> ModelIdentity:
    """Hash config and weights, on which a result depends; once for all series of a run.

    Args:
        config_text: The config as YAML; without keys that are paths its hash is the same on every machine.
        weights: File of the weights.
        device: What the model runs on.
        provenance: JSON that a weights file holds about itself; invalid entries are left out.

    Raises:
        CheckpointError: The weights cannot be read.
    """
    try:
        with weights.open("rb") as file:
            weights_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        found = f"cannot be read ({error.strerror or type(error).__name__})"
        raise CheckpointError(weights, found=found, remedy="check its path and permissions") from error
    config_sha256 = hashlib.sha256(config_text.encode()).hexdigest()
    return ModelIdentity(config_sha256, weights_sha256, device, **_read_provenance(provenance))


def _read_provenance(provenance: str) -> dict[str, Any]:
    told = json.loads(provenance or "{}")
    name, data, iterations = told.get("name"), told.get("data"), told.get("iterations")
    names = [one.get("name") for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    return {
        "name": name[:_MOST_LETTERS] if isinstance(name, str) else "",
        "data": tuple(one[:_MOST_LETTERS] for one in names if isinstance(one, str)),
        "iterations": iterations if isinstance(iterations, int) else None,
    }


class StageClock:
    """Measure the seconds of each stage; those of a repeated stage are added.

    Example::

        clock = StageClock()
        with clock.stage("read"):
            volume = read_volume("series/")
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage, even if it fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def build_manifest(series_hash: str, model: ModelIdentity, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Return what ``manifest.json`` holds.

    Args:
        series_hash: Hash that identifies the series.
        model: What was run.
        seconds: By stage, in order.

    Returns:
        ``schema_version``, ``series_hash``, ``platform``, ``versions`` (:func:`list_versions`), ``config_sha256``,
        ``weights_sha256``, ``device``, ``name``, ``data`` and ``iterations`` of the weights, ``seconds`` by stage and
        ``total``, and ``peak_memory_mib``: the peak of the process so far, null without ``/proc``.
    """
    rounded = {name: round(value, 3) for name, value in seconds.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "series_hash": series_hash,
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": list_versions(),
        **asdict(model),
        "data": list(model.data),
        "seconds": {**rounded, "total": round(sum(seconds.values()), 3)},
        "peak_memory_mib": _peak_memory_mib(),
    }


def list_versions() -> dict[str, str | None]:
    """Return the versions of lung_d2, Python and :data:`PACKAGES`, without importing them; None if one is missing."""
    # A checkout of lung_d2 need not be installed.
    known = {"lung_d2": __version__, "python": platform.python_version()}
    return {**known, **{name: _version_of(name) for name in PACKAGES}}


@cache
def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # Detectron2 has no release of its own on PyPI: others repackage it under another name.
        # metadata.packages_distributions() would read the lists of all files, which takes a second.
        found = (one for one in metadata.distributions() if package in (one.read_text("top_level.txt") or "").split())
        return next((f"{one.version} ({one.metadata['Name']})" for one in found), None)


def _peak_memory_mib() -> float | None:
    # Not ru_maxrss of getrusage: on Linux a process inherits that of its parent.
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else None
