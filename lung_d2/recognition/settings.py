"""What a user may choose of the way from a series to findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lung_d2.engine.lung_view import LungUse
from lung_d2.errors import ConfigError
from lung_d2.lesions.link import LinkSettings

LOBE_VALUES = ("auto", "lungmask", "totalsegmentator")


@dataclass(frozen=True)
class LabelFiles:
    """Label volumes of other tools, on the grid of the series.

    Attributes:
        lungs: Right lung 1, left lung 2, as lungmask's R231 writes them; they replace the lung field. A file, or a
            folder that holds one for each series, named by its SeriesInstanceUID or its hash.
        lobes: The five lobes; findings are then told per lobe, and without ``lungs`` the lobes make up the lungs. A
            file or folder as well.
        lobe_values: Whose values the lobes have: one of :data:`LOBE_VALUES`.

    Raises:
        ConfigError: ``lobe_values`` is none of them.
    """

    lungs: Path | None = None
    lobes: Path | None = None
    lobe_values: str = "auto"

    def __post_init__(self) -> None:
        if self.lobe_values not in LOBE_VALUES:
            expected = " or ".join(LOBE_VALUES)
            raise ConfigError("lobe_values", found=self.lobe_values, expected=expected, remedy="correct it")


@dataclass(frozen=True)
class RecognitionSettings:
    """How a series is recognised and what is written of it.

    Attributes:
        use: What the lung field is used for in prediction.
        link: How detections become lesions. Overlays show detections from its ``min_detection_score`` on.
        labels: Lungs and lobes of other tools.
        segment_per_lesion: The DICOM segmentation has a segment for each lesion; else one for all of a category.
        write_empty_segmentation: A category without lesions gets a segmentation too, with an empty segment.
    """

    use: LungUse = field(default_factory=LungUse)
    link: LinkSettings = field(default_factory=LinkSettings)
    labels: LabelFiles = field(default_factory=LabelFiles)
    segment_per_lesion: bool = True
    write_empty_segmentation: bool = False

    def describe(self) -> Mapping[str, Any]:
        """Return the settings as plain data, without paths."""
        content = asdict(self)
        content["labels"] = {
            "lungs_given": self.labels.lungs is not None,
            "lobes_given": self.labels.lobes is not None,
            "lobe_values": self.labels.lobe_values,
        }
        return content
