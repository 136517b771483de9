"""What a user may choose of the way from a series to findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lung_d2.engine.lung_view import LungUse
from lung_d2.errors import ConfigError
from lung_d2.lesions.link import LinkSettings
from lung_d2.lungs.field import BUILTIN, finder_names

MIN_EXTENT_MM = 6.0
"""Lesions that extend less across the slices are left out unless told otherwise: most false detections lie on one or
two thin slices alone."""

LOBE_VALUES = ("auto", "lungmask", "totalsegmentator")


@dataclass(frozen=True)
class LabelFiles:
    """Where lungs and lobes come from: a finder, or label volumes of other tools on the grid of the series.

    Attributes:
        lungs: The name of a finder (:func:`lung_d2.lungs.field.finder_names`); or a label volume with right lung 1,
            left lung 2. A file, or a folder that holds one for each series, named by its SeriesInstanceUID or its hash.
            None: the lobes, if they are given; else our own finder.
        lobes: The five lobes; findings are then told per lobe, and without ``lungs`` the lobes make up the lungs. A
            file or folder as well.
        lobe_values: Whose values the lobes have: one of :data:`LOBE_VALUES`.

    Raises:
        ConfigError: ``lobe_values`` is not one of them, or no finder has this name.
    """

    lungs: str | Path | None = None
    lobes: Path | None = None
    lobe_values: str = "auto"

    def __post_init__(self) -> None:
        if self.lobe_values not in LOBE_VALUES:
            expected = " or ".join(LOBE_VALUES)
            raise ConfigError("lobe_values", found=self.lobe_values, expected=expected, remedy="correct it")
        if isinstance(self.lungs, str) and self.lungs not in finder_names():
            expected = " or ".join(finder_names())
            raise ConfigError("lungs", found=self.lungs, expected=expected, remedy="choose one, or give a Path")

    @property
    def lung_finder(self) -> str:
        """What finds the lungs: the name of a finder, ``label volume`` or ``lobes``."""
        if self.lungs is None:
            return "lobes" if self.lobes is not None else BUILTIN
        return "label volume" if isinstance(self.lungs, Path) else self.lungs


@dataclass(frozen=True)
class RecognitionSettings:
    """How a series is recognised and what is written of it.

    Attributes:
        use: What the lung field is used for in prediction.
        link: How detections become lesions. Overlays show detections from its ``min_detection_score`` on.
        labels: Where lungs and lobes come from.
        segment_per_lesion: The DICOM segmentation has a segment for each lesion; else one for all of a category.
        write_empty_segmentation: A category without lesions gets a segmentation too, with an empty segment.
    """

    use: LungUse = field(default_factory=LungUse)
    link: LinkSettings = field(default_factory=lambda: LinkSettings(min_extent_mm=MIN_EXTENT_MM))
    labels: LabelFiles = field(default_factory=LabelFiles)
    segment_per_lesion: bool = True
    write_empty_segmentation: bool = False

    def describe(self) -> Mapping[str, Any]:
        """Return the settings as plain data, without paths."""
        content = asdict(self)
        content["labels"] = {
            "lung_finder": self.labels.lung_finder,
            "lungs_given": isinstance(self.labels.lungs, Path),
            "lobes_given": self.labels.lobes is not None,
            "lobe_values": self.labels.lobe_values,
        }
        return content
