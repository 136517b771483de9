"""What was found on one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lung_d2.ct.volume import CTVolume
from lung_d2.findings.document import Findings
from lung_d2.findings.manifest import ModelIdentity
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.measure import Measurement
from lung_d2.lesions.territories import LungLabels
from lung_d2.recognition.settings import RecognitionSettings


@dataclass(frozen=True, eq=False)
class Recognition:
    """What was found on one series, or on pictures of slices.

    Attributes:
        name: Hash that names the series outside DICOM, or that of the pictures' bytes.
        planes: The slices, ``(H, W)`` each: int16 HU, or uint8 grey of pictures.
        detections: One entry for each slice, in order.
        model: What was run.
        settings: How.
        seconds: By stage.
        findings: The lesions in 3-D and their measures; None for pictures, which have no mm.
    """

    name: str
    planes: Sequence[npt.NDArray[np.generic]] = field(repr=False)
    detections: tuple[SliceDetections, ...] = field(repr=False)
    model: ModelIdentity
    settings: RecognitionSettings
    seconds: Mapping[str, float]
    findings: Findings | None = field(default=None, repr=False)

    @property
    def volume(self) -> CTVolume | None:
        """The series; None for pictures."""
        return self.findings.volume if self.findings else None

    @property
    def lungs(self) -> LungLabels | None:
        """Where the lungs are; None for pictures."""
        return self.findings.lungs if self.findings else None

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """The lesions; none for pictures."""
        return self.findings.lesions if self.findings else ()

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The measures of each lesion, in their order."""
        return self.findings.measurements if self.findings else ()

    def write(self, output: str | Path, fingerprint: str = "") -> Path:
        """Write ``OUTPUT/NAME/`` with every output, see :func:`lung_d2.recognition.writing.write_recognition`."""
        from lung_d2.recognition.writing import write_recognition

        return write_recognition(self, output, fingerprint)
