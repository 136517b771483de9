"""Lesion categories: what a data set, a checkpoint and a weights file carry of each, and the two defaults."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from lung_d2.errors import DatasetError

PRIVATE_SCHEME = "99LUNGD2"
"""Designator of codes that no standard scheme has; those that begin with 99 are private (PS3.16 8.2)."""


@dataclass(frozen=True)
class Category:
    """A lesion category.

    Attributes:
        name: Name used in files, metadata (``thing_classes``) and tables.
        coco_id: ``category_id`` in COCO JSON, from 1.
        color: RGB of overlays, 0..255; the two defaults differ for colour-blind eyes too (Okabe and Ito 2008).
        code: DICOM code ``(value, scheme, meaning)`` of the segmented property type.
        short_name: What a mark on a picture says, a few capitals.
    """

    name: str
    coco_id: int
    color: tuple[int, int, int]
    code: tuple[str, str, str]
    short_name: str

    @property
    def title(self) -> str:
        """What people call it, as ``Ground glass opacity``: the meaning of its code."""
        return self.code[2]

    def to_coco(self) -> dict[str, Any]:
        """Return its record in the ``categories`` of a COCO file; detection tools read ``id`` and ``name`` alone."""
        return {
            "id": self.coco_id,
            "name": self.name,
            "supercategory": "lung lesion",
            "short_name": self.short_name,
            "color": list(self.color),
            "code": dict(zip(("value", "scheme", "meaning"), self.code, strict=True)),
        }


class Categories(Sequence[Category]):
    """The categories of a data set or a model, in the order of their COCO ids.

    A category's place here is the contiguous class number that the network predicts.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        """Take categories in any order.

        Raises:
            DatasetError: There is none, or two share an id or a name.
        """
        self._all = tuple(sorted(categories, key=lambda category: category.coco_id))
        for kind, values in (
            ("ids", [category.coco_id for category in self._all]),
            ("names", [category.name for category in self._all]),
        ):
            if not values or len(set(values)) < len(values):
                raise DatasetError(
                    "categories", found=f"{kind} {values}", expected="one of each", remedy="correct them"
                )

    @overload
    def __getitem__(self, number: int) -> Category: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[Category, ...]: ...

    def __getitem__(self, number: int | slice) -> Category | tuple[Category, ...]:
        return self._all[number]

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Category]:
        return iter(self._all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Categories) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    def __repr__(self) -> str:
        return f"Categories({', '.join(self.names)})"

    @property
    def names(self) -> list[str]:
        """Names in order: ``thing_classes`` of Detectron2's metadata."""
        return [category.name for category in self._all]

    @property
    def numbers(self) -> dict[int, int]:
        """The place of each by its COCO id: ``thing_dataset_id_to_contiguous_id`` of Detectron2's metadata."""
        return {category.coco_id: number for number, category in enumerate(self._all)}

    def by_name(self, name: str) -> Category:
        """Return the category of that name.

        Raises:
            DatasetError: No category has this name.
        """
        return self._find(dict(zip(self.names, self._all, strict=True)), name, f"category {name!r}")

    def by_coco_id(self, coco_id: int) -> Category:
        """Return the category of that COCO id.

        Raises:
            DatasetError: No category has this id.
        """
        return self._find({category.coco_id: category for category in self._all}, coco_id, f"category_id {coco_id}")

    @staticmethod
    def _find(known: Mapping[Any, Category], key: object, where: str) -> Category:
        if key not in known:
            expected = f"one of {', '.join(map(str, known))}"
            raise DatasetError(where, found="unknown", expected=expected, remedy="correct it")
        return known[key]

    def to_coco(self) -> list[dict[str, Any]]:
        """Return the ``categories`` of a COCO file."""
        return [category.to_coco() for category in self._all]

    @classmethod
    def from_coco(cls, records: Any, where: object) -> Categories:
        """Read the ``categories`` of a COCO file, a checkpoint or a weights file.

        Records that hold ``id`` and ``name`` alone, as those of other tools and of earlier versions, get what
        :func:`describe_category` gives.

        Args:
            records: A list of records.
            where: What holds them, for errors.

        Raises:
            DatasetError: They are not such a list, or contradict each other.
        """
        try:
            return cls([_read_record(record) for record in records])
        except DatasetError as error:
            raise error.at(str(where)) from error
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(
                str(where),
                found=f"categories that cannot be read ({type(error).__name__}: {error})",
                expected="a list of records with id and name",
                remedy="correct them",
            ) from error


GROUND_GLASS_OPACITY = Category(
    "ground_glass_opacity", 1, (230, 159, 0), ("112120", "DCM", "Ground glass opacity"), "GGO"
)
BRONCHIECTASIS = Category("bronchiectasis", 2, (86, 180, 233), ("12295008", "SCT", "Bronchiectasis"), "BE")

CATEGORIES = Categories([GROUND_GLASS_OPACITY, BRONCHIECTASIS])
"""The two default categories: those of the method, of the shipped weights and of files that name no others."""

# The rest of the palette of Okabe and Ito (2008), which colour-blind eyes tell apart.
_MORE_COLORS = ((204, 121, 167), (0, 158, 115), (240, 228, 66), (213, 94, 0), (0, 114, 178))


def describe_category(
    name: str,
    coco_id: int,
    *,
    color: tuple[int, int, int] | None = None,
    code: tuple[str, str, str] | None = None,
    short_name: str | None = None,
) -> Category:
    """Make a category of a name and an id; what is not given comes from the default of this name, else is derived.

    Args:
        name: Lower case with underscores.
        coco_id: From 1.
        color: RGB, 0..255; else the next of a palette for colour-blind eyes.
        code: DICOM code ``(value, scheme, meaning)``; else a private one, of the scheme ``99LUNGD2``.
        short_name: A few capitals; else the initials of the name, or its first three letters.

    Raises:
        ValueError: A value is not of this kind.
    """
    default = next((category for category in CATEGORIES if category.name == name), None)
    color = color or (default.color if default else _color(coco_id))
    code = code or (default.code if default else (name[:16], PRIVATE_SCHEME, name.replace("_", " ").capitalize()))
    short_name = short_name or (default.short_name if default else _initials(name))
    if not (name.isidentifier() and len(name) <= 64):
        raise ValueError(f"name {name!r}: expected letters, digits and underscores, at most 64")
    if coco_id < 1 or len(color) != 3 or not all(0 <= value <= 255 for value in color):
        raise ValueError(f"category {name}: expected an id from 1, and a color of three values from 0 to 255")
    if not all(0 < len(text) <= size for text, size in zip(code, (16, 16, 64), strict=True)):
        raise ValueError(f"code {code}: expected value and scheme of at most 16 characters, meaning of at most 64")
    if not 0 < len(short_name) <= 8:
        raise ValueError(f"short name {short_name!r}: expected 1 to 8 characters")
    return Category(name, coco_id, color, code, short_name)


def _read_record(record: Mapping[str, Any]) -> Category:
    color, code = record.get("color"), record.get("code")
    return describe_category(
        str(record["name"]),
        int(record["id"]),
        color=None if color is None else (int(color[0]), int(color[1]), int(color[2])),
        code=None if code is None else (str(code["value"]), str(code["scheme"]), str(code["meaning"])),
        short_name=None if record.get("short_name") is None else str(record["short_name"]),
    )


def _color(coco_id: int) -> tuple[int, int, int]:
    place = coco_id - len(CATEGORIES) - 1
    if 0 <= place < len(_MORE_COLORS):
        return _MORE_COLORS[place]
    red, green, blue = colorsys.hsv_to_rgb(coco_id * 0.618 % 1, 0.7, 0.9)  # the golden ratio spreads the hues
    return round(red * 255), round(green * 255), round(blue * 255)


def _initials(name: str) -> str:
    words = [word for word in name.split("_") if word]
    return "".join(word[0] for word in words[:8]).upper() if len(words) > 1 else name[:3].upper()
