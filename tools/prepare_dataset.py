#!/usr/bin/env python
r"""Make a checked data set of the annotations of any tool: a subcommand for each kind of source.

python tools/prepare_dataset.py dicom CASES --name my_lungs
python tools/prepare_dataset.py volumes ROOT --images ct --labels masks --label 1=ground_glass_opacity --name my_lungs
python tools/prepare_dataset.py slices ROOT --images ct --masks covid=ground_glass_opacity \
        --split-file ROOT/split.csv --name covid_slices
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lung_d2.categories import Categories
from lung_d2.command_line import run_tool
from lung_d2.data.cases import Case
from lung_d2.data.dataset import SplitRule, choose_key, datasets_root, write_dataset
from lung_d2.data.importers.registry import Importer, PatientRule, Request, list_importers
from lung_d2.data.instances import INSTANCE_KINDS, InstanceRule
from lung_d2.data.labels import MEANINGS_HELP, parse_labels
from lung_d2.data.quality.page import PAGE_NAME, write_dataset_page
from lung_d2.data.selection import TRAIN, Selection
from lung_d2.data.splits import assign_patients, read_split_file
from lung_d2.errors import ConfigError
from lung_d2.lungs.field import BUILTIN, finder_names, parse_finder

logger = logging.getLogger("prepare_dataset")


def build_parser(importers: Mapping[str, Importer]) -> argparse.ArgumentParser:
    """Build the parser: a subcommand for each importer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = parser.add_subparsers(dest="importer", required=True, metavar="KIND")
    for importer in importers.values():
        own = sources.add_parser(
            importer.name,
            parents=[_build_common(importer.instances)],
            help=importer.summary,
            description=importer.summary,
            conflict_handler="resolve",  # an importer's own --lungs replaces the common one
        )
        own.set_defaults(lung_finder=BUILTIN)
        importer.add_arguments(own)
    return parser


def _build_common(instances: str) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("source", type=Path, metavar="SOURCE", help="folder or file of the source")
    common.add_argument("--name", required=True, help="name of the data set; its splits are NAME_train and NAME_val")
    common.add_argument("--root", type=Path, help="folder of data sets (default: DETECTRON2_DATASETS, else datasets)")
    common.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 4), help="processes")
    common.add_argument("--overwrite", action="store_true", help="replace a data set of this name")
    common.add_argument(
        "--pseudonym-key",
        type=Path,
        metavar="FILE",
        help="pseudonym.key of another data set, so that a patient has one name in both (default: a key of its own)",
    )
    labels = common.add_argument_group("labels")
    labels.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="LABEL=CATEGORY",
        help=f"what a label value or name (*: all others) means: {MEANINGS_HELP}",
    )
    labels.add_argument(
        "--instances",
        choices=INSTANCE_KINDS,
        default=instances,
        help="what one lesion is: connected parts of a slice, or of the volume, or what the source tells apart "
        "(default %(default)s)",
    )
    labels.add_argument(
        "--min-area-mm2", type=float, default=0.0, help="leave out smaller parts of a slice (default 0: none)"
    )
    labels.add_argument(
        "--lungs",
        dest="lung_finder",
        default=BUILTIN,
        type=parse_finder,
        help=f"who finds the lungs of volumes: {', '.join(finder_names())}; or a label volume of them, or a folder of "
        f"them named by series (default {BUILTIN})",
    )
    labels.add_argument(
        "--allow-unannotated", action="store_true", help="take a series without annotation as one without lesions"
    )
    _add_selection(common)
    _add_splits(common)
    return common


def _add_selection(common: argparse.ArgumentParser) -> None:
    default = Selection()
    group = common.add_argument_group("selection of training slices (the other splits keep every slice)")
    group.add_argument(
        "--min-lesion-mm2",
        type=float,
        default=default.min_lesion_mm2,
        help="least lesion area of a slice with lesions, in mm2 (default %(default)g)",
    )
    group.add_argument(
        "--min-contrast-hu",
        type=float,
        default=default.min_contrast_hu,
        help="least contrast of its clearest lesion against the lung around, in HU (default %(default)g)",
    )
    group.add_argument(
        "--min-lung-share",
        type=float,
        default=default.min_lung_share,
        help="least share of the slice's lung that is lesion, 0 to 1 (default %(default)g)",
    )
    group.add_argument(
        "--lesion-free-ratio",
        type=float,
        default=default.lesion_free_ratio,
        help="lesion-free slices kept for each with a lesion (default %(default)g; inf: all)",
    )


def _add_splits(common: argparse.ArgumentParser) -> None:
    group = common.add_argument_group("patients and splits")
    group.add_argument("--patients", default="", metavar="REGEX", help="its first group is the patient, in a file path")
    group.add_argument(
        "--patients-from",
        choices=("id", "folder"),
        default="id",
        help="what tells patients apart: what the source says, or the folder in SOURCE, where all ids are the same",
    )
    group.add_argument(
        "--split-file", type=Path, help="CSV with columns split, and patient (or case, volume) and/or file"
    )
    group.add_argument("--val-fraction", type=float, default=0.2, help="share of the patients (default 0.2)")
    group.add_argument("--test-fraction", type=float, default=0.0, help="share of the patients (default 0)")
    group.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    group.add_argument(
        "--allow-duplicates", action="store_true", help="only warn of near-identical slices in different splits"
    )


def main() -> None:
    """Find the cases, import them, deal them to splits, write the data set with its report, and say what it holds."""
    importers = list_importers()
    args = build_parser(importers).parse_args()
    listed = read_split_file(args.split_file) if args.split_file else {"split": {}, "patient": {}}
    request = Request(
        source=args.source,
        labels=parse_labels(args.label),
        rule=InstanceRule(args.instances, args.min_area_mm2, args.lung_finder),
        patients=PatientRule(args.patients, listed["patient"], by_folder=args.patients_from == "folder"),
        allow_unannotated=args.allow_unannotated,
    )
    importer = importers[args.importer]
    cases = importer.find_cases(request, **importer.own_options(args))
    key = choose_key(datasets_root(args.root), args.name, args.pseudonym_key)
    folder = write_dataset(
        datasets_root(args.root),
        args.name,
        cases,
        _choose_split(args, cases, listed["split"], key),
        key=key,
        categories=_join_categories(request, cases),
        selection=_parse_selection(args),
        allow_duplicates=args.allow_duplicates,
        workers=args.workers,
        overwrite=args.overwrite,
        finish=write_dataset_page,
    )
    _say(folder, args.name)
    logger.info("look at %s", folder / PAGE_NAME)


def _join_categories(request: Request, cases: Sequence[Case]) -> Categories:
    """Return the categories of --label, and those that the importer's own options or the source define."""
    found = [one for each in (request.labels, *cases) for one in each.categories]
    return Categories(list(dict.fromkeys(found)))


def _choose_split(
    args: argparse.Namespace, cases: Sequence[Case], listed: Mapping[str, str], key: bytes
) -> Mapping[str, str] | SplitRule:
    """Return the split that a file or the source names for each patient, else the rule by which they are dealt."""
    split_of: Mapping[str, str] = {}
    if args.split_file:
        split_of = assign_patients([(case.patient, case.name) for case in cases], listed, args.split_file, key)
    elif any(case.split for case in cases):
        split_of = {case.patient: case.split for case in cases}
    fractions = {} if split_of else _parse_fractions(args.val_fraction, args.test_fraction)
    if TRAIN not in (set(split_of.values()) | {name for name, share in fractions.items() if share}):
        logger.warning("no patient is in the split %s: there is nothing to train on", TRAIN)
    return split_of or SplitRule(fractions, args.seed)


def _parse_fractions(val: float, test: float) -> dict[str, float]:
    train = round(1 - val - test, 9)  # 1 - 0.9 - 0.1 is not quite 0
    if not (val >= 0 and test >= 0 and train >= 0):
        raise ConfigError(
            f"--val-fraction {val:g} --test-fraction {test:g}",
            found="a share below 0" if min(val, test) < 0 else f"{val + test:.3g} of the patients",
            expected="shares from 0 to 1, together 1 at most",
            remedy="correct them",
        )
    return {TRAIN: train, "val": val, "test": test}


def _parse_selection(args: argparse.Namespace) -> Selection:
    ratio = None if math.isinf(args.lesion_free_ratio) else args.lesion_free_ratio
    return Selection(args.min_lesion_mm2, args.min_contrast_hu, args.min_lung_share, ratio, args.seed)


def _say(folder: Path, name: str) -> None:
    for json_file in sorted((folder / "annotations").glob("*.json")):
        content = json.loads(json_file.read_text())
        counts = Counter(one["category_id"] for one in content["annotations"] if not one["iscrowd"])
        lesions = ", ".join(f"{counts[category['id']]} {category['name']}" for category in content["categories"])
        patients = len({image["patient"] for image in content["images"]})
        logger.info(
            "%s_%s: %d patients, %d slices, %s", name, json_file.stem, patients, len(content["images"]), lesions
        )
    logger.info("written to %s", folder)


if __name__ == "__main__":
    run_tool(main)
