"""What looks wrong in a data set, found from the facts of its slices; each with a sentence and a remedy.

A suspicion is no error: healthy patients have no lesions, and patients who lie prone look upside down. Looked at are
all imported slices, those that selection leaves out included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lung_d2.data.quality import checks
from lung_d2.data.quality.checks import MAX_EXAMPLES, Example, Record, Series, group_series
from lung_d2.data.quality.facts import TINY_PX


@dataclass(frozen=True)
class Suspicion:
    """A kind of thing that looks wrong.

    Attributes:
        kind: One word for programs.
        title: A few words.
        unit: What is counted: slice or series.
        count: How many.
        explanation: What it may mean, in one sentence.
        remedy: What to do about it.
        examples: Some of them.
    """

    kind: str
    title: str
    unit: str
    count: int
    explanation: str
    remedy: str
    examples: tuple[Example, ...]


Find = Callable[[Sequence[Series]], Iterator[Example]]


def find_suspicions(splits: Mapping[str, Sequence[Record]]) -> list[Suspicion]:
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
            words = (kind.name, kind.title, kind.unit, len(examples), kind.explanation, kind.remedy)
            found.append(Suspicion(*words, examples=some))
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
    """What a suspicion says, and how it is found."""

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
        checks.find_turned,
    ),
    _Kind(
        "spine",
        "Spine not at the bottom",
        "series",
        "The spine is not at the bottom of these slices: they are flipped, or the patient lies prone.",
        "Look at the pictures; where the patient does not lie prone, correct the orientation in the file.",
        _of_each_series(checks.note_spine_aside),
    ),
    _Kind(
        "not_hu",
        "Not Hounsfield units",
        "series",
        "The values of these series are not Hounsfield units, so that every window and density would be wrong.",
        "Apply rescale slope and intercept once, or give the pictures to the importer of 8-bit slices.",
        _of_each_series(checks.note_not_hu),
    ),
    _Kind(
        "outside_lung",
        "Lesions outside the lung",
        "slice",
        "Lesions lie mostly outside the lung: the masks may be flipped, shifted or of another series.",
        "Look at the pictures; where the masks do not fit, export them again on the grid of their series.",
        checks.find_outside_lung,
    ),
    _Kind(
        "mask_everywhere",
        "Mask nearly everywhere",
        "slice",
        "More than half of the slice is marked as lesion: the mask may be inverted, or be that of the body.",
        "Look at the pictures; name the label of the lesions, not that of the background.",
        _of_each_slice(checks.note_mask_everywhere),
    ),
    _Kind(
        "empty_mask",
        "Empty masks",
        "slice",
        "Lesions are listed without a single pixel.",
        "Remove them from the source, or draw them again; they get no annotation.",
        _of_each_slice(checks.note_empty_mask),
    ),
    _Kind(
        "tiny_parts",
        "Tiny components",
        "slice",
        f"Parts of masks have fewer than {TINY_PX} pixels: slips of the pen that would be taught as lesions.",
        "Leave them out by the least area of an instance (--min-area-mm2), or clean the masks.",
        _of_each_slice(checks.note_tiny_parts),
    ),
    _Kind(
        "no_lesion",
        "No lesion",
        "series",
        "No lesion is marked in these series.",
        "Nothing, where the patients are healthy; else look for a mask that is empty or was not found.",
        _of_each_series(checks.note_no_lesion),
    ),
    _Kind(
        "no_lung_field",
        "No lung found",
        "series",
        "No lung was found in these series, so that contrast and share of the lung are unknown there.",
        "Look at the pictures: they may show another part of the body, or hold no Hounsfield units.",
        _of_each_series(checks.note_no_lung_field),
    ),
    _Kind(
        "duplicate",
        "Copies within a split",
        "slice",
        "Slices are equal to others of their split, pixel for pixel.",
        "Remove the copies; they count twice in training and in every figure.",
        checks.find_duplicates,
    ),
    _Kind(
        "blank",
        "Blank slices",
        "slice",
        "Slices hold one value everywhere.",
        "Remove them, or convert them again if they should show something.",
        _of_each_slice(checks.note_blank),
    ),
    _Kind(
        "spacing",
        "Unusual spacing",
        "series",
        "The distances of pixels or slices are unusual, so that areas in mm2 and volumes may be wrong.",
        "Compare with the scanner's protocol; correct the header, or add the slices that are missing.",
        _of_each_series(checks.note_odd_spacing),
    ),
)
