"""What the labels of a source mean: a category, background, or undecided."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY, Category, category_by_name
from lung_d2.errors import DatasetError


class Label(Enum):
    """What a label stands for where it is no category of ours."""

    BACKGROUND = "background"
    """Decided to be no lesion of ours."""
    IGNORE = "ignore"
    """Undecided: neither a lesion nor background, in training and evaluation."""


Meaning = Category | Label

T = TypeVar("T")

ANY = "*"
"""The entry of a table for the labels that nothing else names."""
_SHOWN_NAMES, _SHOWN_LETTERS = 20, 64

# Names as annotation tools and public sets spell them, after `_normal`.
_SYNONYMS: dict[str, Meaning] = {
    **{category.name: category for category in CATEGORIES},
    **{label.value: label for label in Label},  # CVAT's "background", labelme's "_background_" and "__ignore__"
    "ggo": GROUND_GLASS_OPACITY,
    "ground_glass": GROUND_GLASS_OPACITY,
    "ground_glass_opacities": GROUND_GLASS_OPACITY,
    "traction_bronchiectasis": BRONCHIECTASIS,
}


@dataclass(frozen=True)
class LabelTable:
    """The meaning of each label value or name.

    Attributes:
        entries: Meaning by value (as text) or name; names go by letters and digits, in any case. That of ``*`` is for
            labels that nothing else names.
    """

    entries: Mapping[str, Meaning] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep the names as they are looked up."""
        object.__setattr__(self, "entries", {_normal(name): meaning for name, meaning in self.entries.items()})

    def meaning(self, *names: str | int, where: object) -> Meaning:
        """Return the meaning of a label.

        Args:
            names: Its value, its name, its code: the first that is known counts; those of the table come before
                the names that our categories have anyway.
            where: File and place that messages name.

        Raises:
            DatasetError: None of them is known.
        """
        found = self.find(*names)
        if found is not None:
            return found
        shown = _shown(names)
        raise DatasetError(
            str(where),
            found=f"label {shown!r} without a category",
            expected="one of --label, or a name of ours",
            remedy=f"give --label '{shown}={CATEGORIES[0].name}' (or {CATEGORIES[1].name}, background, ignore)",
        )

    def find(self, *names: str | int) -> Meaning | None:
        """Return the meaning of a label as :meth:`meaning` does, or None where nothing names it."""
        spelled = [_normal(str(name)) for name in names if str(name).strip()]
        for table in (self.entries, _SYNONYMS):
            for name in spelled:
                if name in table:
                    return table[name]
        return self.entries.get(ANY)


def meanings_of_names(named: Mapping[T, Sequence[str | int]], labels: LabelTable, where: object) -> dict[T, Meaning]:
    """Look up what many labels mean.

    Args:
        named: What each label is called, see :meth:`LabelTable.meaning`; the first name is shown in messages.
        labels: The table.
        where: What messages name.

    Raises:
        DatasetError: Some mean nothing; it lists them all.
    """
    found = {key: labels.find(*names) for key, names in named.items()}
    unknown = list(dict.fromkeys(_shown(named[key]) for key, meaning in found.items() if meaning is None))
    if unknown:
        listed = ", ".join(repr(name) for name in unknown[:_SHOWN_NAMES])
        more = f" and {len(unknown) - _SHOWN_NAMES} more" if len(unknown) > _SHOWN_NAMES else ""
        raise DatasetError(
            str(where),
            found=f"{len(unknown)} label(s) without a category: {listed}{more}",
            expected="each in --label, or named as a category of ours",
            remedy=f"give --label '{unknown[0]}={CATEGORIES[0].name}' (or {CATEGORIES[1].name}, background, ignore), "
            f"and --label '{ANY}=background' for all that are no lesion",
        )
    return {key: meaning for key, meaning in found.items() if meaning is not None}


def _shown(names: Sequence[str | int]) -> str:
    return next((str(name)[:_SHOWN_LETTERS] for name in names if str(name).strip()), "")


def parse_labels(entries: Iterable[str]) -> LabelTable:
    """Parse ``LABEL=MEANING`` entries of a command line.

    Args:
        entries: Such as ``"1=ground_glass_opacity"``, ``"Consolidation=background"``, ``"3=ignore"``, and
            ``"*=background"`` for all that nothing else names.

    Raises:
        DatasetError: An entry has another form, names no meaning, or a label twice.
    """
    table: dict[str, Meaning] = {}
    for entry in entries:
        label, _, name = entry.rpartition("=")
        label, name = label.strip(), name.strip()
        if not label or _normal(label) == "0":
            raise DatasetError(
                f"--label {entry}", found="no label", expected="e.g. 1=bronchiectasis", remedy="correct it"
            )
        if _normal(label) in table:
            raise DatasetError(f"--label {entry}", found="the same label twice", remedy="give each once")
        table[_normal(label)] = parse_meaning(name)
    return LabelTable(table)


def parse_meaning(name: str) -> Meaning:
    """Parse what a label or a folder of masks means: a category by a common spelling, background, or ignore.

    Raises:
        DatasetError: It is none of them.
    """
    return _SYNONYMS.get(_normal(name)) or category_by_name(name.strip())


def _normal(name: str) -> str:
    if name.strip() == ANY:
        return ANY
    return re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")
