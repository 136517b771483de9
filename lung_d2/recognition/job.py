"""The work on one series of many, wherever it runs: picklable, and a result that is there already is kept."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lung_d2 import __version__
from lung_d2.config.loading import load_config
from lung_d2.ct.headers import list_files
from lung_d2.errors import InputError, LungD2Error
from lung_d2.files import hash_file_stats, hash_identity
from lung_d2.findings.manifest import MANIFEST_NAME
from lung_d2.recognition.pipeline import identify_origin, recognize
from lung_d2.recognition.settings import RecognitionSettings
from lung_d2.recognition.sources import SeriesSource
from lung_d2.recognition.summary import DONE, KEPT, Row, failed_row, read_row

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from lung_d2.engine import CTPredictor
    from lung_d2.engine.predictor import ModelOrigin

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelChoice:
    """A model, by what builds it.

    Attributes:
        config_file: Its config; None: the one in its weights file.
        opts: ``KEY, VALUE`` pairs that override the config, ``MODEL.WEIGHTS`` among them.
        batch_size: Slices run together; None: by the device.
        backend: What computes the network, of :data:`lung_d2.engine.predictor.BACKENDS`.
    """

    config_file: Path | None
    opts: tuple[str, ...]
    batch_size: int | None = None
    backend: str = "torch"

    @property
    def weights(self) -> str:
        """What ``opts`` say last of ``MODEL.WEIGHTS``; empty where they do not."""
        return dict(zip(self.opts[::2], self.opts[1::2], strict=False)).get("MODEL.WEIGHTS", "")


@dataclass(frozen=True)
class RecognitionJob:
    """What is done with each series.

    Attributes:
        model: With which model.
        output: Where the result folders are.
        settings: How.
        overwrite: Whether a series is done again whose result is there already, and made of the same files, weights,
            config, settings and version. A result made of others is always replaced.
        progress: Whether to show a bar of the slices; or what is called with the slices done and all, after each.
    """

    model: ModelChoice
    output: Path
    settings: RecognitionSettings = field(default_factory=RecognitionSettings)
    overwrite: bool = False
    progress: bool | Callable[[int, int], None] = False

    def prepare(self) -> None:
        """Load the model, so that what is wrong with it is said once, and not for each series."""
        load_predictor(self.model)

    def run(self, source: SeriesSource) -> tuple[Path, str]:
        """Recognise one series and write its results.

        Returns:
            Its folder, and :data:`DONE` or :data:`KEPT`.

        Raises:
            LungD2Error: It cannot be read, recognised or written.
        """
        fingerprint = self.fingerprint(source)
        kept = None if self.overwrite else self._find(source, fingerprint)
        if kept is not None:
            return kept, KEPT
        predictor = load_predictor(self.model)
        found = recognize(
            source.series or source.paths,
            predictor,
            self.settings,
            progress=self.progress,
        )
        if source.name:
            found = replace(found, name=source.name)
        if _read_fingerprint(self.output / found.name) not in (None, fingerprint):
            # A warning, since worker processes show no less.
            logger.warning("%s: other files, weights, config or settings than before: result replaced", source.title)
        return found.write(self.output, fingerprint), DONE

    def __call__(self, source: SeriesSource) -> Row:
        """Do the same, and tell an error by the row."""
        try:
            folder, status = self.run(source)
        except LungD2Error as error:
            logger.error("error: %s", error)
            return failed_row(source.name, source.series_instance_uid, error, source.paths)
        return read_row(folder, source.series_instance_uid, status)

    def fingerprint(self, source: SeriesSource) -> str:
        """Hash all that a result depends on: path, size and date of the files, weights, config, settings, version.

        Raises:
            InputError: A file is not there.
        """
        missing = next((path for path in source.paths if not path.is_file()), None)
        if missing is not None:
            raise InputError(missing, found="no such file", remedy="check the path")
        model = identify_origin(read_origin(self.model), "")
        labels = [path for path in (self.settings.labels.lungs, self.settings.labels.lobes) if isinstance(path, Path)]
        files = hash_file_stats(path.resolve() for path in [*source.paths, *list_files(labels)])
        settings = json.dumps(self.settings.describe(), sort_keys=True)
        parts = (__version__, model.config_sha256, model.weights_sha256, settings, files)
        return hash_identity("result", "\0".join(parts))

    def _find(self, source: SeriesSource, fingerprint: str) -> Path | None:
        """Find the finished result of a series; of those that no UID names, by looking through all of them."""
        if source.name:
            folders: Iterable[Path] = [self.output / source.name]
        else:
            folders = (folder for folder in sorted(self.output.iterdir()) if not folder.name.startswith("."))
        return next((folder for folder in folders if _read_fingerprint(folder) == fingerprint), None)


def _read_fingerprint(folder: Path) -> str | None:
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
    except (OSError, ValueError):
        return None  # no result, or of another tool
    return manifest.get("fingerprint") if isinstance(manifest, dict) else None


@functools.lru_cache(maxsize=1)
def read_config(model: ModelChoice) -> CfgNode:
    """Read the config of a model.

    Raises:
        CheckpointError: There is no config file, and no weights file that holds one.
        ConfigError: The config cannot be used.
    """
    from lung_d2.engine.weights import config_of

    if model.config_file is not None:
        return load_config(model.config_file, model.opts)
    return config_of(model.weights, _without_weights(model.opts))


def _without_weights(opts: tuple[str, ...]) -> list[str]:
    """Leave the weights out: they are the file that the config is in."""
    spots = [index for index in range(0, len(opts), 2) if opts[index] != "MODEL.WEIGHTS"]
    return [part for index in spots for part in opts[index : index + 2]]


@functools.lru_cache(maxsize=1)
def read_origin(model: ModelChoice) -> ModelOrigin:
    """Return where a model is from, without loading it."""
    from lung_d2.engine.predictor import ModelOrigin

    return ModelOrigin.of(read_config(model))


@functools.lru_cache(maxsize=1)
def load_predictor(model: ModelChoice) -> CTPredictor:
    """Load a model, once in each process."""
    from lung_d2.engine import CTPredictor

    return CTPredictor(read_config(model), batch_size=model.batch_size, backend=model.backend)
