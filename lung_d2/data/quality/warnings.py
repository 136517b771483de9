"""What looks wrong in a data set: each kind of warning, found from the facts of its slices.

A warning is not an error: healthy patients have no lesions, and patients who lie prone look upside down. All imported
slices are searched, including those that selection leaves out. A ``note_...`` function says what it found in a slice or
series, or returns an empty text; a ``find_...`` function searches all series and yields examples.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lung_d2.data.quality.facts import THUMBNAIL_SIDE, TINY_PX
from lung_d2.data.quality.fingerprint import find_turned as find_turned_thumbnails
from lung_d2.errors import Warning

Record = Mapping[str, Any]

MAX_EXAMPLES = 8
"""A report lists no more of a kind; the count is of all."""
_LEAST_IN_LUNG = 0.5  # of a lesion's pixels; fields follow the pleura to a pixel or two, lesions touch it
_LEAST_LUNG_SHARE = 0.005  # of a picture, on the slice with most lung
_MOST_LESION_SHARE = 0.5  # of a picture: more than both lungs take
_PIXEL_MM = (0.2, 2.5)  # fields of view of 100 mm at 512 pixels to 640 mm at 256
_MOST_STRETCH = 1.2
_SLICE_MM = (0.2, 25.0)  # micro-CT to the widest gaps of high-resolution protocols
_MOST_GAP = 1.5  # times the median distance of the slices: one is missing
_LEAST_AIR, _MOST_BELOW_AIR, _LEAST_SOFT = 0.01, 0.1, 0.001  # shares of the pixels of a series
_SPINE_ASIDE = 0.15  # see facts: 0.27 to 0.76 in chests on the back, -0.5 in prone ones


@dataclass(frozen=True)
class Example:
    """A place that looks wrong.

    Attributes:
        file_name: A slice, as the data set names it; of a series the one in its middle.
        split: Its split.
        note: What was found there.
    """

    file_name: str
    split: str
    note: str


@dataclass(frozen=True, eq=False)
class Series:
    """The records of one series, in slice order."""

    split: str
    records: Sequence[Record]

    @property
    def name(self) -> str:
        """Its hashed id."""
        return str(self.records[0]["series"])

    @property
    def is_hu(self) -> bool:
        """Whether its source says that it is in HU."""
        return bool(self.records[0]["hu"])

    def facts(self, name: str) -> list[Any]:
        """Return one fact of every slice where it is known."""
        return [record["facts"][name] for record in self.records if record["facts"][name] is not None]

    def example(self, note: str, record: Record | None = None) -> Example:
        """Return a slice as an example, by default the middle one."""
        shown = record or self.records[len(self.records) // 2]
        return Example(shown["file_name"], self.split, note)


def group_series(splits: Mapping[str, Sequence[Record]]) -> list[Series]:
    """Group records by split and series, in their order."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for split, records in splits.items():
        for record in records:
            groups[split, record["series"]].append(record)
    return [Series(split, members) for (split, _), members in groups.items()]


def note_empty_mask(record: Record) -> str:
    """Note lesions without a pixel."""
    count = record["facts"]["empty_masks"]
    return f"{count} mask(s) without a pixel" if count else ""


def note_blank(record: Record) -> str:
    """Note a slice of one value."""
    levels = record["facts"]["levels"]
    return f"{levels['min']} everywhere" if levels["min"] == levels["max"] else ""


def note_mask_everywhere(record: Record) -> str:
    """Note a mask that takes more of the slice than both lungs would."""
    share = record["facts"]["lesion_px"] / (record["height"] * record["width"])
    return f"{share:.0%} of the slice is lesion" if share > _MOST_LESION_SHARE else ""


def note_tiny_parts(record: Record) -> str:
    """Note parts of masks of a few pixels."""
    count = record["facts"]["tiny_parts"]
    return f"{count} part(s) of fewer than {TINY_PX} pixels" if count else ""


def find_outside_lung(series: Sequence[Series]) -> Iterator[Example]:
    """Find lesions that lie mostly outside a lung field that was found."""
    for one in series:
        for record in [] if note_no_lung_field(one) else one.records:
            known = [lesion for lesion in record["facts"]["instances"] if lesion["in_lung"] is not None]
            outside = [lesion for lesion in known if lesion["in_lung"] < _LEAST_IN_LUNG]
            if outside:
                worst = min(outside, key=lambda lesion: lesion["in_lung"])
                name = worst["category"]
                note = f"{len(outside)} of {len(known)} lesions; of one ({name}) {worst['in_lung']:.0%} is in the lung"
                yield one.example(note, record)


def note_no_lung_field(series: Series) -> str:
    """Note a series in which lungs were looked for and not found."""
    areas = series.facts("lung_px")
    size = series.records[0]["height"] * series.records[0]["width"]
    if not areas or max(areas) >= _LEAST_LUNG_SHARE * size:
        return ""
    return f"{max(areas)} pixels of lung on the slice with most"


def note_no_lesion(series: Series) -> str:
    """Note a series without lesions and without undecided regions."""
    return "" if any(record["annotations"] for record in series.records) else f"{len(series.records)} slices"


def note_not_hu(series: Series) -> str:
    """Note values that cannot be HU of a chest, in a series that says it is in HU."""
    if not series.is_hu:
        return ""
    levels = series.facts("levels")
    lowest, highest = min(one["min"] for one in levels), max(one["max"] for one in levels)
    air, below, soft = (statistics.fmean(one[key] for one in levels) for key in ("air", "below_air", "soft"))
    if lowest >= 0 and highest <= 255:
        return f"values {lowest} to {highest}, as of 8-bit pictures"
    if air < _LEAST_AIR:
        return f"values {lowest} to {highest}, {air:.1%} of them air or lung (-1100 to -500 HU)"
    if below > _MOST_BELOW_AIR:
        return f"{below:.0%} below -1100 HU, where there is no matter"
    return f"{soft:.2%} denser than fat (-200 HU)" if soft < _LEAST_SOFT else ""


def note_odd_spacing(series: Series) -> str:
    """Note unusual distances of pixels or slices, and gaps."""
    notes = []
    if spacing := series.records[0]["pixel_spacing_mm"]:
        if not all(_PIXEL_MM[0] <= side <= _PIXEL_MM[1] for side in spacing):
            notes.append(f"pixels of {spacing[0]:g} x {spacing[1]:g} mm")
        elif max(spacing) / min(spacing) > _MOST_STRETCH:
            notes.append(f"pixels that are not square, {spacing[0]:g} x {spacing[1]:g} mm")
    distances = slice_distances_mm(series)
    if len(distances):
        middle = float(np.median(distances))
        if not _SLICE_MM[0] <= middle <= _SLICE_MM[1]:
            notes.append(f"slices {middle:g} mm apart")
        elif distances.max() > _MOST_GAP * middle:
            notes.append(f"slices {distances.min():g} to {distances.max():g} mm apart")
    return ", ".join(notes)


def slice_distances_mm(series: Series) -> np.ndarray:
    """Return the distances of neighbouring slices in mm; none where the slices are not neighbours."""
    positions = [record["slice_position_mm"] for record in series.records if "neighbours" in record]
    return np.abs(np.diff([position for position in positions if position is not None]))


def find_duplicates(series: Sequence[Series]) -> Iterator[Example]:
    """Find slices that are equal to an earlier one of their split."""
    first: dict[tuple[str, str], Record] = {}
    for one in series:
        for record in one.records:
            digest = record["facts"]["digest"]
            same = first.setdefault((one.split, digest), record) if digest else record
            if same is not record:
                yield one.example(f"equal to {same['file_name']}", record)


def find_turned(series: Sequence[Series]) -> Iterator[Example]:
    """Find series that lie otherwise than most, see :mod:`lung_d2.data.quality.fingerprint`."""
    thumbnails = {one.name: mean for one in series if (mean := _mean_thumbnail(one)) is not None}
    turns = {found.series: found.turn for found in find_turned_thumbnails(thumbnails)}
    for one in series:
        if one.name in turns:
            yield one.example(f"like the others when {turns[one.name]}")


def _mean_thumbnail(series: Series) -> np.ndarray | None:
    rows = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in series.facts("thumbnail") if text]
    return np.mean(rows, axis=0).reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE) if rows else None


def note_spine_aside(series: Series) -> str:
    """Note a spine that is not at the bottom, in HU."""
    places = series.facts("spine")
    if not places:
        return ""
    row, column = np.median(places, axis=0)
    if max(-row, abs(column)) < _SPINE_ASIDE or abs(column) < row:
        return ""
    side = "top" if -row > abs(column) else "right" if column > 0 else "left"
    return f"the spine is at the {side}"


@dataclass(frozen=True)
class DatasetWarning(Warning):
    """A kind of thing that looks wrong; its text says in one sentence what it may mean.

    Attributes:
        title: A few words.
        unit: What is counted: slice or series.
        count: How many.
        remedy: What to do about it.
        examples: Some of them.
    """

    title: str
    unit: str
    count: int
    remedy: str
    examples: tuple[Example, ...]


Find = Callable[[Sequence[Series]], Iterator[Example]]


def find_warnings(splits: Mapping[str, Sequence[Record]]) -> list[DatasetWarning]:
    """Find what looks wrong.

    Args:
        splits: The records of each split.

    Returns:
        The kinds that were found, in a fixed order, with some examples each.
    """
    series = group_series(splits)
    found = []
    for kind in _KINDS:
        examples = list(kind.find(series))
        if examples:
            some = tuple(examples[:: -(-len(examples) // MAX_EXAMPLES)])
            words = (kind.name, kind.explanation, kind.title, kind.unit, len(examples), kind.remedy)
            found.append(DatasetWarning(*words, examples=some))
    return found


def _of_each_slice(note_of: Callable[[Record], str]) -> Find:
    """Return a search for the slices of which ``note_of`` says something."""

    def find(series: Sequence[Series]) -> Iterator[Example]:
        for one in series:
            for record in one.records:
                if note := note_of(record):
                    yield one.example(note, record)

    return find


def _of_each_series(note_of: Callable[[Series], str]) -> Find:
    """Return a search for the series of which ``note_of`` says something."""

    def find(series: Sequence[Series]) -> Iterator[Example]:
        for one in series:
            if note := note_of(one):
                yield one.example(note)

    return find


@dataclass(frozen=True)
class _Kind:
    """What a warning says, and how it is found."""

    name: str
    title: str
    unit: str
    explanation: str
    remedy: str
    find: Find


_KINDS = (
    _Kind(
        "turned",
        "Turned against the others",
        "series",
        "These series look more like the others when they are flipped or turned: a conversion may have done it.",
        "Look at the pictures; convert them again with their orientation, or leave them where patients lie prone "
        "(turned by 180 degrees).",
        find_turned,
    ),
    _Kind(
        "spine",
        "Spine not at the bottom",
        "series",
        "The spine is not at the bottom of these slices: they are flipped, or the patient lies prone.",
        "Look at the pictures; where the patient does not lie prone, correct the orientation in the file.",
        _of_each_series(note_spine_aside),
    ),
    _Kind(
        "not_hu",
        "Not Hounsfield units",
        "series",
        "The values of these series are not Hounsfield units, so that every window and density would be wrong.",
        "Apply rescale slope and intercept once, or give the pictures to the importer of 8-bit slices.",
        _of_each_series(note_not_hu),
    ),
    _Kind(
        "outside_lung",
        "Lesions outside the lung",
        "slice",
        "Lesions lie mostly outside the lung: the masks may be flipped, shifted or of another series.",
        "Look at the pictures; where the masks do not fit, export them again on the grid of their series.",
        find_outside_lung,
    ),
    _Kind(
        "mask_everywhere",
        "Mask nearly everywhere",
        "slice",
        "More than half of the slice is marked as lesion: the mask may be inverted, or be that of the body.",
        "Look at the pictures; name the label of the lesions, not that of the background.",
        _of_each_slice(note_mask_everywhere),
    ),
    _Kind(
        "empty_mask",
        "Empty masks",
        "slice",
        "Lesions are listed without a single pixel.",
        "Remove them from the source, or draw them again; they get no annotation.",
        _of_each_slice(note_empty_mask),
    ),
    _Kind(
        "tiny_parts",
        "Tiny components",
        "slice",
        f"Parts of masks have fewer than {TINY_PX} pixels: likely drawn by accident, and learnt as lesions.",
        "Leave them out by the least area of an instance (--min-area-mm2), or clean the masks.",
        _of_each_slice(note_tiny_parts),
    ),
    _Kind(
        "no_lesion",
        "No lesion",
        "series",
        "No lesion is marked in these series.",
        "Nothing, where the patients are healthy; else look for a mask that is empty or was not found.",
        _of_each_series(note_no_lesion),
    ),
    _Kind(
        "no_lung_field",
        "No lung found",
        "series",
        "No lung was found in these series, so that contrast and share of the lung are unknown there.",
        "Look at the pictures: they may show another part of the body, or hold no Hounsfield units.",
        _of_each_series(note_no_lung_field),
    ),
    _Kind(
        "duplicate",
        "Copies within a split",
        "slice",
        "Slices are equal to others of their split, pixel for pixel.",
        "Remove the copies; they count twice in training and in every figure.",
        find_duplicates,
    ),
    _Kind(
        "blank",
        "Blank slices",
        "slice",
        "Slices hold one value everywhere.",
        "Remove them, or convert them again if they should show something.",
        _of_each_slice(note_blank),
    ),
    _Kind(
        "spacing",
        "Unusual spacing",
        "series",
        "The distances of pixels or slices are unusual, so that areas in mm2 and volumes may be wrong.",
        "Compare with the scanner's protocol; correct the header, or add the slices that are missing.",
        _of_each_series(note_odd_spacing),
    ),
)
