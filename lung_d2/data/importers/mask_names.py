"""Which mask belongs to which picture, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lung_d2.data.planes import PICTURES
from lung_d2.errors import DatasetError

_SUFFIXES = PICTURES | {".dcm"}


@dataclass(frozen=True)
class _Affix:
    """What stands in a mask's name where another text, or none, stands in its picture's."""

    picture: str
    mask: str
    at_end: bool

    def name_of_picture(self, mask: str) -> str | None:
        """Return the picture's name (a path without suffix) for a mask's; None where the mask has no such affix."""
        folder, slash, stem = mask.rpartition("/")
        if self.at_end:
            return f"{folder}{slash}{stem.removesuffix(self.mask)}{self.picture}" if stem.endswith(self.mask) else None
        return f"{folder}{slash}{self.picture}{stem.removeprefix(self.mask)}" if stem.startswith(self.mask) else None


def names_below(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Return files by their path below a folder, without suffix and with ``/``.

    Raises:
        DatasetError: Two files differ by their suffix alone.
    """
    found: dict[str, Path] = {}
    for path in files:
        has_suffix = path.suffix.lower() in _SUFFIXES  # a DICOM file may be named by a UID, whose dots mean nothing
        name = (path.relative_to(folder).with_suffix("") if has_suffix else path.relative_to(folder)).as_posix()
        if name in found:
            raise DatasetError(
                path, found=f"named as {found[name].name}", expected="one of a name", remedy="remove one"
            )
        found[name] = path
    return found


def match_masks(pictures: Mapping[str, Path], masks: Mapping[str, Path], folder: Path) -> dict[Path, Path]:
    """Find the picture of each mask of a folder.

    Names are the same, or all masks have the same affix: ``0001_mask`` or ``mask_0001`` of ``0001``, ``seg_0001`` of
    ``img_0001``. An affix holds no digit; one that pictures have instead is the same in all of them.

    Args:
        pictures: By name, see :func:`names_below`.
        masks: The same.
        folder: Of the masks, for messages.

    Returns:
        The mask of each picture that has one.

    Raises:
        DatasetError: There is no mask, a mask has no picture, or affixes give different matches.
    """
    if not masks:
        raise DatasetError(folder, found="no mask", expected="masks named as the pictures", remedy="correct the path")
    if any(name in pictures for name in masks):
        orphans = [path for name, path in sorted(masks.items()) if name not in pictures]
        if orphans:
            raise _orphans(orphans, folder)
        return {pictures[name]: path for name, path in masks.items()}
    matches = []
    for affix in set(_affixes(pictures, min(masks))):
        match = _apply(affix, pictures, masks)
        if match and match not in matches:
            matches.append(match)
    if len(matches) > 1:
        raise DatasetError(
            folder, found="names that fit the pictures in several ways", remedy="name the masks as the pictures"
        )
    if not matches:
        raise _orphans(sorted(masks.values()), folder)
    return matches[0]


def _orphans(orphans: Sequence[Path], folder: Path) -> DatasetError:
    return DatasetError(
        folder,
        found=f"{len(orphans)} mask(s) without a picture, {orphans[0].name} first",
        expected="masks named as the pictures",
        remedy="rename or remove them",
    )


def _apply(affix: _Affix, pictures: Mapping[str, Path], masks: Mapping[str, Path]) -> dict[Path, Path]:
    """Return the mask of each picture; nothing where a mask has none."""
    match = {}
    for name, path in masks.items():
        picture = affix.name_of_picture(name)
        if picture is None or picture not in pictures:
            return {}
        match[pictures[picture]] = path
    return match


def _affixes(pictures: Mapping[str, Path], mask: str) -> Iterator[_Affix]:
    """Yield the affixes by which a mask's name could be that of a picture in the folder of the same name."""
    folder, _, stem = mask.rpartition("/")
    stems = [name.rpartition("/")[2] for name in pictures]
    for name in pictures:
        inner, _, own = name.rpartition("/")
        if inner != folder:
            continue
        for at_end in (False, True):
            shared = _shared_start(own, stem) if at_end else _shared_start(own[::-1], stem[::-1])
            if not shared:
                continue
            affix = (
                _Affix(own[shared:], stem[shared:], True) if at_end else _Affix(own[:-shared], stem[:-shared], False)
            )
            common = all(one.endswith(affix.picture) if at_end else one.startswith(affix.picture) for one in stems)
            if common and not re.search(r"\d", affix.picture + affix.mask):
                yield affix


def _shared_start(first: str, second: str) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
