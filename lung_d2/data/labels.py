"""What the labels of a source mean: a lesion category, background, or undecided."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeVar

from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY, Categories, Category, describe_category
from lung_d2.errors import DatasetError


class Label(Enum):
    """What a label stands for where it is not a lesion category."""

    BACKGROUND = "background"
    """Known not to be a lesion."""
    IGNORE = "ignore"
    """Undecided: neither a lesion nor background, in training and evaluation."""


Meaning = Category | Label

T = TypeVar("T")

ANY = "*"
"""The entry of a table for the labels that nothing else names."""
DEFINITION = "NAME,code=VALUE|SCHEME|MEANING,color=#RRGGBB,short=ABC"
"""How a command line defines a category of its own; each part but the name may be left out."""
MEANINGS_HELP = (
    f"{', '.join(CATEGORIES.names)}, background, ignore (undecided), or a category of your own: {DEFINITION}"
)
"""What a command line accepts as the meaning of a label."""
_SHOWN_NAMES, _SHOWN_LETTERS = 20, 64

# Other spellings of the default categories in annotation tools and public data sets, after `_normal`.
_SYNONYMS = {
    "ggo": GROUND_GLASS_OPACITY.name,
    "ground_glass": GROUND_GLASS_OPACITY.name,
    "ground_glass_opacities": GROUND_GLASS_OPACITY.name,
    "traction_bronchiectasis": BRONCHIECTASIS.name,
}
# DICOM codes that mean something here beside the categories' own: traction bronchiectasis, background.
_CODES = {("19325002", "SCT"): BRONCHIECTASIS.name, ("125040", "DCM"): Label.BACKGROUND.value}


@dataclass(frozen=True)
class LabelTable:
    """The categories of a data set, and which of them each label value or name means.

    Attributes:
        entries: Meaning by value (as text) or name; names are compared by letters and digits, in any case. The entry
            ``*`` is for labels that nothing else names.
        categories: The categories in play, whose names need no entry.
    """

    entries: Mapping[str, Meaning] = field(default_factory=dict)
    categories: Categories = CATEGORIES

    def __post_init__(self) -> None:
        """Keep the names in the form in which they are looked up."""
        object.__setattr__(self, "entries", {_normal(name): meaning for name, meaning in self.entries.items()})

    def meaning(self, *names: str | int, where: object) -> Meaning:
        """Return the meaning of a label.

        Args:
            names: Its value, its name, its code: the first that is known counts. Entries of the table come before
                names of categories.
            where: File and place that messages name.

        Raises:
            DatasetError: None of them is known.
        """
        return self.meanings({0: names}, where)[0]

    def meanings(self, named: Mapping[T, Sequence[str | int]], where: object) -> dict[T, Meaning]:
        """Return the meaning of many labels.

        Args:
            named: The names of each label, see :meth:`meaning`; messages show the first.
            where: File and place that messages name.

        Raises:
            DatasetError: Some are unknown; the message lists them all.
        """
        found = {key: self.find(*names) for key, names in named.items()}
        unknown = list(dict.fromkeys(_shown(named[key]) for key, meaning in found.items() if meaning is None))
        if not unknown:
            return {key: meaning for key, meaning in found.items() if meaning is not None}
        listed = ", ".join(repr(name) for name in unknown[:_SHOWN_NAMES])
        more = f" and {len(unknown) - _SHOWN_NAMES} more" if len(unknown) > _SHOWN_NAMES else ""
        others = ", ".join([*self.categories.names[1:], *(label.value for label in Label)])
        raise DatasetError(
            str(where),
            found=f"{len(unknown)} label(s) without a category: {listed}{more}",
            expected="the name of a category, or an entry of --label",
            remedy=f"give --label '{unknown[0]}={self.categories.names[0]}' (or {others}, or {DEFINITION}), "
            f"and --label '{ANY}=background' for all labels that are not lesions",
        )

    def find(self, *names: str | int) -> Meaning | None:
        """Return the meaning of a label as :meth:`meaning` does, or None where it is unknown."""
        spelled = [_normal(str(name)) for name in names if str(name).strip()]
        for table in (self.entries, self._known()):
            for name in spelled:
                if name in table:
                    return table[name]
        return self.entries.get(ANY)

    def name_of_code(self, value: str, scheme: str) -> str:
        """Return the name of what a DICOM code stands for; empty where no category has it."""
        codes = _CODES | {category.code[:2]: category.name for category in self.categories}
        return codes.get((value, scheme), "")

    def parse(self, text: str) -> Meaning:
        """Return what a name on a command line or in a table means: a category by a common spelling, or a label.

        Args:
            text: A name, or a definition, which :meth:`define` has taken before.

        Raises:
            DatasetError: It is unknown.
        """
        name = _parse_definition(text)[0]
        found = self._known().get(_normal(name))
        if found is None:
            raise DatasetError(
                f"category {name!r}",
                found="unknown",
                expected=f"one of {', '.join([*self.categories.names, *(label.value for label in Label)])}",
                remedy=f"rename it, or define it: {DEFINITION}",
            )
        return found

    def define(self, texts: Iterable[str]) -> LabelTable:
        """Return the table with the categories that some texts define.

        Args:
            texts: Each as :data:`DEFINITION`; a name alone defines nothing.

        Raises:
            DatasetError: A definition is malformed, or contradicts another.
        """
        table = self
        for text in texts:
            name, parts = _parse_definition(text)
            if parts:
                table = table.add(_build_category(name, parts, len(table.categories), text), text)
        return table

    def add(self, category: Category, where: object) -> LabelTable:
        """Return the table with one more category, which gets the next free id; nothing changes if it is known.

        Raises:
            DatasetError: Another category has its name or its code.
        """
        if _normal(category.name) in _SYNONYMS or _normal(category.name) in {label.value for label in Label}:
            raise _refused(where, f"{category.name}, which has a meaning already", "another name")
        for known in self.categories:
            if replace(category, coco_id=known.coco_id) == known:
                return self
            if known.name == category.name or known.code[:2] == category.code[:2]:
                raise _refused(where, f"two different definitions of {known.name} or its code", "one for each category")
        new = replace(category, coco_id=self.categories[-1].coco_id + 1)
        return replace(self, categories=Categories([*self.categories, new]))

    def _known(self) -> dict[str, Meaning]:
        """Return what names mean without an entry."""
        known: dict[str, Meaning] = {_normal(category.name): category for category in self.categories}
        known |= {label.value: label for label in Label}  # also labelme's "_background_" and "__ignore__"
        return known | {name: known[other] for name, other in _SYNONYMS.items() if other in known}


def parse_labels(entries: Iterable[str]) -> LabelTable:
    """Parse ``LABEL=MEANING`` entries of a command line.

    Args:
        entries: Such as ``"1=ground_glass_opacity"``, ``"Consolidation=background"``, ``"3=ignore"``;
            ``"*=background"`` for all labels that nothing else names; ``"3=consolidation,color=#CC79A7,short=CON"``,
            which defines a category. Other entries may use its name, before or after.

    Raises:
        DatasetError: An entry is malformed, has an unknown meaning, or repeats a label.
    """
    pairs = {entry: split_assignment(entry) for entry in entries}
    categories = LabelTable().define(meaning for _, meaning in pairs.values()).categories
    table: dict[str, Meaning] = {}
    for entry, (label, meaning) in pairs.items():
        where = f"--label {entry}"
        if not label or _normal(label) == "0":
            raise DatasetError(where, found="no label", expected="e.g. 1=bronchiectasis", remedy="correct it")
        if _normal(label) in table:
            raise DatasetError(where, found="the same label twice", remedy="give each once")
        table[_normal(label)] = LabelTable(categories=categories).parse(meaning)
    return LabelTable(table, categories)


def split_assignment(text: str) -> tuple[str, str]:
    """Split ``LEFT=MEANING`` at the ``=`` before the meaning, which may be a definition; ``LEFT`` may hold ``=``."""
    head, comma, rest = _split_definition(text)
    left, _, name = head.rpartition("=")
    return left.strip(), f"{name.strip()}{comma}{rest}"


def _split_definition(text: str) -> tuple[str, str, str]:
    """Split a text before its first ``,code=``, ``,color=`` or other ``,word=``."""
    match = re.search(r",\s*\w+\s*=", text)
    return (text[: match.start()], ",", text[match.start() + 1 :]) if match else (text, "", "")


def _parse_definition(text: str) -> tuple[str, dict[str, str]]:
    """Return the name of a category and the parts of its definition, if any."""
    name, _, rest = _split_definition(text)
    parts: dict[str, str] = {}
    for part in re.split(r",(?=\s*\w+\s*=)", rest) if rest else []:
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in ("code", "color", "short") or key in parts:
            raise _refused(text, f"the part {key!r}" if key not in parts else f"{key!r} twice", DEFINITION)
        parts[key] = value
    return name.strip(), parts


def _build_category(name: str, parts: Mapping[str, str], count: int, text: str) -> Category:
    color = code = None
    if "color" in parts:
        match = re.fullmatch(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})", parts["color"])
        if not match:
            raise _refused(text, f"the color {parts['color']!r}", "#RRGGBB, as #CC79A7")
        color = (int(match[1], 16), int(match[2], 16), int(match[3], 16))
    if "code" in parts:
        values = [part.strip() for part in parts["code"].split("|")]
        if len(values) != 3:
            raise _refused(
                text, f"the code {parts['code']!r}", "VALUE|SCHEME|MEANING, as 95436008|SCT|Lung consolidation"
            )
        code = (values[0], values[1], values[2])
    try:
        return describe_category(_normal(name), count + 1, color=color, code=code, short_name=parts.get("short"))
    except ValueError as error:
        raise _refused(text, str(error), DEFINITION) from error


def _refused(where: object, found: str, expected: str) -> DatasetError:
    return DatasetError(f"category definition {str(where)!r}", found=found, expected=expected, remedy="correct it")


def _shown(names: Sequence[str | int]) -> str:
    return next((str(name)[:_SHOWN_LETTERS] for name in names if str(name).strip()), "")


def _normal(name: str) -> str:
    if name.strip() == ANY:
        return ANY
    return re.sub(r"[\W_]+", "_", name.strip().lower()).strip("_")
