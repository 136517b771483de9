"""Jobs that need no model, in a module that worker processes can import."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from lung_d2.ct import load_series
from lung_d2.errors import CheckpointError, InputError
from lung_d2.recognition.job import ModelChoice
from lung_d2.recognition.settings import RecognitionSettings
from lung_d2.recognition.sources import SeriesSource
from lung_d2.recognition.summary import DONE, Row, failed_row


@dataclass(frozen=True)
class StandInJob:
    """What becomes of a series depends on its name: ``die``, ``defect``, ``wait`` or done."""

    output: Path
    broken: str = ""
    progress: bool = True
    model: ModelChoice = field(default_factory=lambda: ModelChoice(Path("config.yaml"), ()))
    settings: RecognitionSettings = field(default_factory=RecognitionSettings)

    def prepare(self) -> None:
        if self.broken == "die":
            os._exit(7)
        if self.broken:
            raise CheckpointError("model.pth", found=self.broken, remedy="train it")

    def __call__(self, source: SeriesSource) -> Row:
        (self.output / f"{source.name}-{os.getpid()}").touch()
        if source.name.startswith("bar") and self.progress:
            (self.output / f"{source.name}-{os.getpid()}-shown").touch()
        if source.name.startswith("die"):
            os._exit(7)
        if source.name.startswith("wait"):
            time.sleep(600)
        if source.name.startswith("defect"):
            raise ZeroDivisionError("DOE^JANE")
        return Row(source.name, source.series_instance_uid, DONE, slices=1)


@dataclass(frozen=True)
class ReadingJob(StandInJob):
    """Reads a series, as far as a recognition goes before the network, and makes its folder."""

    def __call__(self, source: SeriesSource) -> Row:
        assert source.series is not None
        try:
            volume = load_series(source.series)
        except InputError as error:
            return failed_row(source.name, source.series_instance_uid, error, source.paths)
        (self.output / source.name).mkdir()
        return Row(source.name, source.series_instance_uid, DONE, slices=len(volume.hu))


def sources(*names: str) -> tuple[SeriesSource, ...]:
    return tuple(
        SeriesSource((Path(f"/data/{name}/DOE^JANE.dcm"),), f"1.2.{place}", name) for place, name in enumerate(names)
    )
