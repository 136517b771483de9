"""Images and label volumes in pairs: NIfTI, NRRD or MetaImage.

::

    ROOT/images/a_ct.nii.gz    ROOT/labels/a_seg.nii.gz              paired by the differing part of the names, here a
    ROOT/CASE/ct.nrrd          ROOT/CASE/ggo.nrrd                    by folders, with patterns: */ct.nrrd, */ggo.nrrd
    pairs.csv                  image,label[,patient][,category]      as a table says

A label volume is a label map, whose values ``--label`` explains, or a mask of one category. Options handle public sets
whose volumes are stacks of slices of different patients, or hold grey levels instead of HU.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from lung_d2.ct.geometry import positions_along_normal
from lung_d2.ct.labels import Labels, read_labels_on
from lung_d2.ct.volume import CTVolume, build_volume, read_raw_volume
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.importers.registry import Importer, PatientRule, Request, check_folder, name_below
from lung_d2.data.importers.volume_cases import (
    RegionsOf,
    build_volume_case,
    join_regions,
    meanings_of_values,
    regions_of_instances,
    regions_of_labels,
)
from lung_d2.data.importers.volumes.pairs import (
    LabelFile,
    Pair,
    home_of,
    keys_by_name,
    keys_by_pattern,
    list_volumes,
    pair_by_keys,
    read_pairs,
    stem_of,
)
from lung_d2.data.instances import InstanceRule, annotate_slice
from lung_d2.data.labels import MEANINGS_HELP, LabelTable, Meaning, split_assignment
from lung_d2.errors import ConfigError, DatasetError
from lung_d2.files import hash_file_stats, hash_identity

logger = logging.getLogger(__name__)

_PAIRING = "rename the files, or give --image-key and --label-key, or --pairs"
HuRange = tuple[float, float]
"""HU that the first and the last of ``GREY_RANGE`` stand for."""
GREY_RANGE = (0.0, 255.0)
"""The values of an image of grey levels; a chest always has HU below -1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this source."""
    parser.add_argument(
        "--images", default="images", metavar="WHERE", help="folder in SOURCE, or a pattern: 'ct/*.nii.gz' (images)"
    )
    parser.add_argument(
        "--labels",
        action="append",
        metavar="WHERE[=CATEGORY]",
        help=f"folder or pattern of label maps (labels), or of masks of one category; may be repeated. CATEGORY: "
        f"{MEANINGS_HELP}",
    )
    parser.add_argument("--image-key", default="", metavar="REGEX", help="pair by its first group in the paths")
    parser.add_argument("--label-key", default="", metavar="REGEX", help="the same of labels (default: --image-key)")
    parser.add_argument("--pairs", type=Path, metavar="CSV", help="columns image, label; patient and category if any")
    parser.add_argument("--only-annotated", action="store_true", help="leave out the images without a label")
    parser.add_argument("--lesion-free", default="", metavar="WHERE", help="images that are known to have no lesion")
    parser.add_argument(
        "--unrelated-slices", action="store_true", help="the slices of a volume are of different patients"
    )
    parser.add_argument(
        "--hu-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="HU of grey levels 0 and 255, for images of grey levels; others hold HU",
    )


def find_cases(
    request: Request,
    *,
    images: str = "images",
    labels: Sequence[str] | None = None,
    image_key: str = "",
    label_key: str = "",
    pairs: Path | None = None,
    only_annotated: bool = False,
    lesion_free: str = "",
    unrelated_slices: bool = False,
    hu_range: Sequence[float] | None = None,
) -> list[Case]:
    """Find the pairs.

    Args:
        request: What is asked of any importer.
        images: Folder in the source, or pattern.
        labels: The same of label maps; ``WHERE=CATEGORY``: of masks of one category. None: ``labels``.
        image_key: Expression whose first group pairs an image, in its path below the source; empty: by names.
        label_key: The same of labels; empty: as ``image_key``.
        pairs: A CSV file that pairs them instead, see :func:`lung_d2.data.importers.volumes.pairs.read_pairs`.
        only_annotated: Leave out images that lack a label.
        lesion_free: Folder or pattern of further images, which need no label.
        unrelated_slices: Every slice is a case of its own, without neighbours and without a known spacing.
        hu_range: HU of grey levels 0 and 255; it applies to images whose values lie between 0 and 255.

    Returns:
        The cases, sorted by image.

    Raises:
        ConfigError: The range is empty or not finite.
        DatasetError: Files are missing or cannot be paired, or an image lacks its label.
    """
    check_folder(request.source, "volumes")
    if hu_range is not None and not -np.inf < hu_range[0] < hu_range[1] < np.inf:
        raise ConfigError("--hu-range", found=str(list(hu_range)), expected="LOW below HIGH", remedy="correct it")
    entries = [_split_entry(entry) for entry in labels or ["labels"]]
    request = replace(request, labels=request.labels.define(name for _, name in entries))
    wanted = [(where, request.labels.parse(name) if name else None) for where, name in entries]
    if pairs:
        found, count = read_pairs(pairs, request.labels), 1
        homes = [Path(os.path.commonpath([pair.image.parent for pair in found]))]
    else:
        found, count = _pair_by_name(request.source, images, wanted, image_key, label_key or image_key), len(wanted)
        homes = [home_of(request.source, images)]
    homes += [home_of(request.source, lesion_free)] if lesion_free else []
    normal = list_volumes(request.source, lesion_free) if lesion_free else []
    chosen = _choose_annotated(found, count, normal, only_annotated, request.allow_unannotated)
    build = _build_slice_cases if unrelated_slices else _build_cases
    scale = None if hu_range is None else (hu_range[0], hu_range[1])
    base = pairs.parent if pairs else request.source
    place = _Place(base, tuple(homes), request.patients)
    return [case for pair in chosen for case in build(pair, place, request, scale)]


IMPORTER = Importer("volumes", "image and label volumes in pairs (NIfTI, NRRD, MetaImage)", find_cases, add_arguments)


@dataclass(frozen=True)
class _Place:
    """Where the images lie: below ``base``, in one of ``homes``, which holds the folders of the patients if any."""

    base: Path
    homes: tuple[Path, ...]
    patients: PatientRule

    def name(self, image: Path) -> str:
        inner = image.relative_to(self.base) if image.is_relative_to(self.base) else Path(image.name)
        return inner.with_name(stem_of(image)).as_posix()

    def patient(self, pair: Pair, path: Path, name: str) -> str:
        """Return the hash of the patient of an image, or of a slice in it."""
        own = hash_identity("patient", pair.patient or name)
        if not self.patients.by_folder or self.patients.pattern:
            return self.patients.patient_of(path, self.base, own)
        home = next(one for one in self.homes if pair.image.is_relative_to(one))
        self.patients.check_in_folder(pair.image, home)
        return self.patients.patient_of(pair.image, home, own)


def _pair_by_name(
    source: Path, images: str, labels: Sequence[tuple[str, Meaning | None]], image_key: str, label_key: str
) -> list[Pair]:
    files = list_volumes(source, images)
    keys = keys_by_pattern(files, source, image_key, "--image-key") if image_key else keys_by_name(files)
    found: dict[Path, list[LabelFile]] = {path: [] for path in files}
    for where, meaning in labels:
        masks = list_volumes(source, where)
        both = sorted(set(masks) & set(files))
        if both:
            raise DatasetError(
                both[0],
                found="an image and a label",
                expected="one of them",
                remedy="give distinct patterns",
            )
        names = keys_by_pattern(masks, source, label_key, "--label-key") if label_key else keys_by_name(masks)
        for image, own in pair_by_keys(keys, names, _PAIRING).items():
            if len(own) > 1:
                raise DatasetError(
                    image, found=f"{len(own)} labels, {own[0].name} and {own[1].name}", expected="one", remedy=_PAIRING
                )
            found[image].extend(LabelFile(path, meaning) for path in own)
    return [Pair(image, tuple(files)) for image, files in found.items()]


def _split_entry(entry: str) -> tuple[str, str]:
    """Return folder or pattern, and the category; empty for label maps."""
    where, name = split_assignment(entry)
    return (where, name) if where else (entry, "")


def _choose_annotated(
    pairs: Sequence[Pair], count: int, normal: Sequence[Path], only_annotated: bool, allow_unannotated: bool
) -> list[Pair]:
    """Return the pairs to import, with the images that are known to be normal; ``count``: labels that each needs."""
    by_image = {path: Pair(path) for path in normal} | {pair.image: pair for pair in pairs}
    marked = [path for path in normal if by_image[path].labels]
    if marked:
        raise DatasetError(
            marked[0], found="a label", expected="none, as an image of --lesion-free", remedy="correct the pattern"
        )
    unlabelled = [pair.image for pair in pairs if len(pair.labels) < count and pair.image not in set(normal)]
    if unlabelled and only_annotated:
        logger.info("left out %d of %d images, which lack a label", len(unlabelled), len(pairs))
        by_image = {path: pair for path, pair in by_image.items() if path not in set(unlabelled)}
    elif unlabelled and not allow_unannotated:
        raise DatasetError(
            unlabelled[0],
            found=f"it has no label, as {len(unlabelled)} of {len(pairs)} images",
            expected=f"{count} for each image",
            remedy=f"{_PAIRING}; or --only-annotated to leave it out, --allow-unannotated if it has no lesion",
        )
    if not by_image:
        raise DatasetError("--only-annotated", found="no image with a label", remedy=_PAIRING)
    return [by_image[path] for path in sorted(by_image)]


def _build_cases(pair: Pair, place: _Place, request: Request, hu_range: HuRange | None) -> list[Case]:
    inner = place.name(pair.image)
    return [
        build_volume_case(
            inner,
            patient=place.patient(pair, pair.image, inner),
            series=hash_identity("series", inner),
            read_ct=partial(read_pair_image, pair.image, hu_range),
            annotations=pair.labels,
            read=read_label_file,
            request=request,
            files=_files_of(pair),
        )
    ]


def _build_slice_cases(pair: Pair, place: _Place, request: Request, hu_range: HuRange | None) -> list[Case]:
    fingerprint, cases = hash_file_stats(_files_of(pair)), []
    name = name_below(place.base, pair.image)
    for index in range(len(read_pair_image(pair.image, hu_range).hu)):
        inner = f"{place.name(pair.image)}/{index:04d}"
        cases.append(
            Case(
                name=inner,
                patient=place.patient(pair, pair.image / f"{index:04d}", inner),
                series=hash_identity("series", inner),
                load=partial(load_slice, pair, index, hu_range, request.labels, request.rule, fingerprint, name),
                contiguous=False,
                fingerprint=fingerprint,
                categories=request.labels.categories,
            )
        )
    return cases


def _files_of(pair: Pair) -> list[Path]:
    return [pair.image, *(label.path for label in pair.labels)]


def read_pair_image(path: Path, hu_range: HuRange | None) -> CTVolume:
    """Read an image in HU.

    Args:
        path: The file.
        hu_range: HU of grey levels 0 and 255, for images whose values lie between; others, which have air below 0,
            hold HU and are read as they are. None: all hold HU.

    Raises:
        InputError: It cannot be read, or holds no HU.
    """
    raw = read_raw_volume(path)
    if hu_range is None:
        return build_volume(raw)
    low = min(float(values.min()) for values in raw.slices())
    high = max(float(values.max()) for values in raw.slices())
    # Half a grey level: what scaled and compressed images round to.
    if low < GREY_RANGE[0] - 0.5 or high > GREY_RANGE[1] + 0.5:
        logger.info("%s: values from %g to %g, read as HU", path, low, high)
        return build_volume(raw)
    step = (hu_range[1] - hu_range[0]) / (GREY_RANGE[1] - GREY_RANGE[0])
    return build_volume(replace(raw, slope=raw.slope * step, intercept=raw.intercept * step + hu_range[0]))


def read_label_file(label: LabelFile, table: LabelTable, volume: CTVolume) -> RegionsOf:
    """Read a label file of an image onto its grid.

    Raises:
        DatasetError: A label has no meaning.
        InputError: A file cannot be read, or lies on another grid.
    """
    return _regions_of(label, read_labels_on(label.path, volume), table)


def _regions_of(label: LabelFile, values: Labels, table: LabelTable) -> RegionsOf:
    if label.meaning is not None:
        return regions_of_instances(values, label.meaning)
    return regions_of_labels(values, meanings_of_values(values, table, label.path))


@lru_cache(maxsize=1)
def _read_stack(pair: Pair, hu_range: HuRange | None, fingerprint: str) -> tuple[CTVolume, tuple[Labels, ...]]:
    """Read a stack of slices once for all cases that a worker makes of it; ``fingerprint``: of the files it read."""
    volume = read_pair_image(pair.image, hu_range)
    return volume, tuple(read_labels_on(label.path, volume) for label in pair.labels)


def load_slice(
    pair: Pair,
    index: int,
    hu_range: HuRange | None,
    table: LabelTable,
    rule: InstanceRule,
    fingerprint: str,
    name: str,
) -> Iterator[AnnotatedSlice]:
    """Load one slice of a stack of unrelated ones, without a spacing: one header cannot have that of all.

    Args:
        pair: The stack.
        index: Of the slice.
        hu_range: See :func:`read_pair_image`.
        table: Meaning of the labels.
        rule: What one instance is.
        fingerprint: Of the files of the pair.
        name: What messages call the stack.
    """
    volume, labels = _read_stack(pair, hu_range, fingerprint)
    here = slice(index, index + 1)
    regions_of = join_regions(
        [_regions_of(label, values[here], table) for label, values in zip(pair.labels, labels, strict=True)]
    )
    lungs = rule.find_lungs(_one_slice(volume, index)).mask[0]
    yield annotate_slice(volume.hu[index], regions_of(0), rule, index, lungs=lungs, name=f"{name} slice {index}")


def _one_slice(volume: CTVolume, index: int) -> CTVolume:
    affine = volume.affine_lps.copy()
    affine[:3, 3] += index * affine[:3, 2]
    return replace(
        volume,
        hu=volume.hu[index : index + 1],
        slice_positions_mm=positions_along_normal(affine, 1),
        affine_lps=affine,
        sop_instance_uids=("",),
        frame_numbers=(None,),
    )
