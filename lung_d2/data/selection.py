"""Step 1 of the method: choose the training slices in which lesions are evident, and some without lesions.

A slice with lesions has to pass every rule whose facts are known; what a source does not give (HU, pixel spacing, the
lung field) is not judged, and the report says for how many slices. A slice without lesions is kept by a ratio. A slice
that holds only undecided regions is neither: it shows no lesion and proves none absent, teaches nothing false, and
stays.
"""

from __future__ import annotations

import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lung_d2.errors import ConfigError, DatasetError

logger = logging.getLogger(__name__)

TRAIN = "train"
"""The split whose slices are selected; the others are measured on, so they keep every slice."""

Record = dict[str, Any]


@dataclass(frozen=True)
class RuleOutcome:
    """What one rule did.

    Attributes:
        name: The field of :class:`Selection`.
        option: What sets it on the command line.
        meaning: What it asks for, in words with units.
        default: The default of its value.
        value: What it was set to; None keeps all.
        removed: Slices that it left out; a slice that fails several rules counts for the first.
        unknown: Slices that it could not judge.
        waived: It stands at its default, which would have left no slice with a lesion, and was not applied.
    """

    name: str
    option: str
    meaning: str
    default: float | None
    value: float | None
    removed: int
    unknown: int
    waived: bool = False


@dataclass(frozen=True, eq=False)
class Choice:
    """What a selection made of a split.

    Attributes:
        selection: By what was chosen.
        kept: The records that are kept, in order.
        rules: What each rule did.
        undecided_only: Slices with undecided regions and no lesion, all of them kept.
    """

    selection: Selection
    kept: list[Record]
    rules: tuple[RuleOutcome, ...]
    undecided_only: int


@dataclass(frozen=True)
class Selection:
    """Which slices of the training split are kept.

    Attributes:
        min_lesion_mm2: Least area of all lesions of a slice together, in mm2; 0: any.
        min_contrast_hu: Least contrast of the slice's most evident lesion against the lung around it, in HU, see
            :mod:`lung_d2.data.quality.facts`; 0: any.
        min_lung_share: Least share of the slice's lung that is lesion, 0..1; 0: any.
        lesion_free_ratio: Slices without lesions that are kept for each slice kept with lesions; None: all. Each
            patient keeps the same share of its own, evenly spread. Where no slice has a lesion, all are kept.
        seed: Where the even spread starts in each patient.
    """

    min_lesion_mm2: float = 10.0
    min_contrast_hu: float = 50.0
    min_lung_share: float = 0.0
    lesion_free_ratio: float | None = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that no slice could be judged by."""
        for name, most in (
            *((name, math.inf) for name in ("min_lesion_mm2", "min_contrast_hu", "lesion_free_ratio")),
            ("min_lung_share", 1.0),
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 <= value <= most):
                expected = "0 to 1" if most == 1.0 else "a finite number, 0 or more"
                where = f"{_WORDS[name][0]} {value:g}"
                raise ConfigError(where, found="no such limit", expected=expected, remedy="correct it")

    def choose(self, records: Sequence[Record]) -> Choice:
        """Apply the rules, and log what each of them removed.

        Args:
            records: The records of the training split; none where there is no such split.

        Returns:
            What is kept, and what each rule did.

        Raises:
            DatasetError: There are slices with lesions, and none is evident enough for a rule that the user set.
        """
        choice = self._apply(records)
        if records:
            _log(choice, len(records))
        return choice

    def _apply(self, records: Sequence[Record]) -> Choice:
        lesion_slices = [record for record in records if has_lesion(record)]
        passing, rules = lesion_slices, []
        for name, measure in _EVIDENCE.items():
            value = getattr(self, name)
            facts = [measure(record) if value else None for record in passing]
            left = [record for record, fact in zip(passing, facts, strict=True) if fact is None or fact >= value]
            waived = bool(passing) and not left and value == getattr(Selection, name)
            if passing and not left and not waived:
                raise DatasetError(
                    "selection",
                    found=f"none of {len(lesion_slices)} training slices with lesions is evident enough",
                    expected="at least one",
                    remedy=f"lower {_WORDS[name][0]}",
                )
            left = passing if waived else left
            unknown = facts.count(None) if value else 0
            rules.append(self._outcome(name, len(passing) - len(left), unknown, waived=waived))
            passing = left
        free = [record for record in records if is_lesion_free(record)]
        kept_free = self._keep_free(free, len(passing)) if lesion_slices else free
        rules.append(self._outcome("lesion_free_ratio", len(free) - len(kept_free), 0))
        undecided = len(records) - len(lesion_slices) - len(free)
        gone = {id(record) for record in (*lesion_slices, *free)} - {id(record) for record in (*passing, *kept_free)}
        return Choice(self, [record for record in records if id(record) not in gone], tuple(rules), undecided)

    def _keep_free(self, free: list[Record], lesion_slices: int) -> list[Record]:
        """Keep the ratio, every patient with the same share of its slices."""
        if self.lesion_free_ratio is None:
            return free
        patients: dict[str, list[Record]] = defaultdict(list)
        for record in free:
            patients[record["patient"]].append(record)
        wanted = min(round(self.lesion_free_ratio * lesion_slices), len(free))
        counts = _share_out(wanted, {patient: len(members) for patient, members in patients.items()})
        return [
            record
            for patient, members in patients.items()
            for record in _spread(members, counts[patient], random.Random(f"{self.seed} {patient}").random())
        ]

    def _outcome(self, name: str, removed: int, unknown: int, *, waived: bool = False) -> RuleOutcome:
        values = getattr(Selection, name), getattr(self, name)
        return RuleOutcome(name, *_WORDS[name], *values, removed, unknown, waived)


def _log(choice: Choice, slices: int) -> None:
    removed = ", ".join(f"{rule.removed} by {rule.option} {rule.value:g}" for rule in choice.rules if rule.removed)
    logger.info("selection keeps %d of %d training slices; left out: %s", len(choice.kept), slices, removed or "none")
    for rule in choice.rules:
        if rule.waived:
            logger.warning("no slice with a lesion reaches the default %s %g: not applied", rule.option, rule.value)
        elif rule.unknown:
            logger.info("%s was not applied to %d slice(s), of which it is unknown", rule.option, rule.unknown)


def lesions_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the annotations of lesions; undecided regions (``iscrowd``) are none."""
    return [annotation for annotation in record["annotations"] if not annotation["iscrowd"]]


def has_lesion(record: Mapping[str, Any]) -> bool:
    """Tell whether a slice has a lesion; an undecided region is none."""
    return bool(lesions_of(record))


def is_lesion_free(record: Mapping[str, Any]) -> bool:
    """Tell whether a slice is known to be without a lesion: no lesion, and nothing undecided."""
    return not record["annotations"]


def _area_mm2(record: Mapping[str, Any]) -> float | None:
    spacing = record["pixel_spacing_mm"]
    return None if spacing is None else record["facts"]["lesion_px"] * spacing[0] * spacing[1]


def _contrast_hu(record: Mapping[str, Any]) -> float | None:
    known = [one["contrast_hu"] for one in record["facts"]["instances"] if one["contrast_hu"] is not None]
    return max(known, default=None)


def _lung_share(record: Mapping[str, Any]) -> float | None:
    facts = record["facts"]
    if not facts["lung_px"]:
        return None
    # Dense lesions may have been left out of the lung field: they count as lung here.
    return facts["lesion_px"] / (facts["lung_px"] + facts["lesion_px"] - facts["lesion_in_lung_px"])


_EVIDENCE: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "min_lesion_mm2": _area_mm2,
    "min_contrast_hu": _contrast_hu,
    "min_lung_share": _lung_share,
}
_WORDS = {
    "min_lesion_mm2": ("--min-lesion-mm2", "least area of a slice's lesions together, mm²"),
    "min_contrast_hu": (
        "--min-contrast-hu",
        "least contrast of its most evident lesion to the lung around it, HU",
    ),
    "min_lung_share": ("--min-lung-share", "least share of its lung that is lesion"),
    "lesion_free_ratio": ("--lesion-free-ratio", "slices without lesions for each slice with lesions"),
}


def _share_out(wanted: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Share a number out in proportion to sizes, by largest remainders."""
    total = sum(sizes.values())
    exact = {name: wanted * size / total for name, size in sizes.items()}
    counts = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (counts[name] - exact[name], name))
    for name in by_remainder[: wanted - sum(counts.values())]:
        counts[name] += 1
    return counts


def _spread(members: list[Record], count: int, start: float) -> list[Record]:
    """Take members at even steps, the first one ``start`` (0..1) of a step from the beginning."""
    return [members[math.floor((index + start) * len(members) / count)] for index in range(count)]


KEEP_ALL = Selection(min_lesion_mm2=0.0, min_contrast_hu=0.0, min_lung_share=0.0, lesion_free_ratio=None)
"""Keeps every slice."""
