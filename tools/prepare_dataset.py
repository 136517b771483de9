#!/usr/bin/env python
r"""Make a data set of DICOM series with masks, or of folders of slices and masks.

python tools/prepare_dataset.py dicom CASES --name my_lungs
python tools/prepare_dataset.py slices ROOT --images ct --masks covid=ground_glass_opacity \
        --split-file ROOT/split.csv --name covid_slices
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections import Counter
from pathlib import Path

from lung_d2.categories import CATEGORIES, Category, category_by_name
from lung_d2.command_line import run_tool
from lung_d2.ct.identity import hash_identity
from lung_d2.data.dataset import Case, datasets_root, write_dataset
from lung_d2.data.importers.dicom_masks import INSTANCE_KINDS, PATIENT_SOURCES, find_dicom_mask_cases
from lung_d2.data.importers.slice_folders import find_slice_cases, patients_by_pattern
from lung_d2.data.splits import read_split_file, split_by_patient
from lung_d2.errors import DatasetError

logger = logging.getLogger("prepare_dataset")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser: a subcommand for each source."""
    names = ", ".join(category.name for category in CATEGORIES)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("source", type=Path, metavar="SOURCE", help="folder of the source")
    common.add_argument("--name", required=True, help="name of the data set; its splits are NAME_train and NAME_val")
    common.add_argument("--root", type=Path, help="folder of data sets (default: DETECTRON2_DATASETS, else datasets)")
    common.add_argument(
        "--split-file", type=Path, help="CSV with columns split, and patient (or case, volume) and/or file"
    )
    common.add_argument("--val-fraction", type=float, default=0.2, help="share of the patients (default 0.2)")
    common.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    common.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 4), help="processes")
    common.add_argument("--overwrite", action="store_true", help="replace a data set of this name")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sources = parser.add_subparsers(dest="kind", required=True)
    dicom = sources.add_parser("dicom", parents=[common], help="case folders with a DICOM series and NIfTI masks")
    dicom.add_argument(
        "--label", action="append", default=[], metavar="VALUE=CATEGORY", help=f"of a label map: {names}, or background"
    )
    dicom.add_argument("--instances", choices=sorted(INSTANCE_KINDS), default="components", help="what one lesion is")
    dicom.add_argument(
        "--patients-from",
        choices=PATIENT_SOURCES,
        default="id",
        help="what tells patients apart: the ID of the DICOM header, or the case folder where all IDs are the same",
    )
    dicom.add_argument(
        "--allow-unannotated", action="store_true", help="take a series without a mask as a case without lesions"
    )
    slices = sources.add_parser("slices", parents=[common], help="folders of 8-bit slices and of masks")
    slices.add_argument("--images", default="images", help="folder of the pictures, in SOURCE")
    slices.add_argument(
        "--masks", action="append", required=True, metavar="FOLDER=CATEGORY", help=f"in SOURCE; one of {names}"
    )
    slices.add_argument("--patients", metavar="REGEX", help="its first group is the patient in a file name")
    return parser


def main() -> None:
    """Find the cases, split them by patient, write the data set and say what it holds."""
    args = build_parser().parse_args()
    split_file = read_split_file(args.split_file) if args.split_file else None
    if args.kind == "dicom":
        cases = find_dicom_mask_cases(
            args.source,
            _parse_labels(args.label),
            args.instances,
            patients_from=args.patients_from,
            allow_unannotated=args.allow_unannotated,
        )
    else:
        cases = _find_slices(args, split_file)
    if split_file:
        split_of = _split_patients(cases, split_file["split"])
    else:
        fractions = {"train": 1 - args.val_fraction, "val": args.val_fraction}
        split_of = split_by_patient((case.patient for case in cases), fractions, args.seed)
    root = datasets_root(args.root)
    folder = write_dataset(root, args.name, cases, split_of, workers=args.workers, overwrite=args.overwrite)
    _say(folder, args.name)


def _find_slices(args: argparse.Namespace, split_file: dict[str, dict[str, str]] | None) -> list[Case]:
    images = args.source / args.images
    if args.patients:
        patient_of = patients_by_pattern(images, args.patients)
    elif split_file and split_file["patient"]:
        patient_of = split_file["patient"]
    else:
        raise DatasetError(
            args.source,
            found="no way to tell the patients apart",
            expected="--split-file with columns file and patient, or --patients REGEX",
            remedy="give one: a split by slice would put one patient into both",
        )
    masks = {}
    for entry in args.masks:
        folder, _, name = entry.rpartition("=")
        masks[args.source / folder] = category_by_name(name)
    return find_slice_cases(images, masks, _hash_values(patient_of))


def _hash_values(patient_of: dict[str, str]) -> dict[str, str]:
    return {file: hash_identity("patient", patient) for file, patient in patient_of.items()}


def _split_patients(cases: list[Case], named: dict[str, str]) -> dict[str, str]:
    """Match a split file, which names patients by ID, by the hashes that a data set holds, or by their case folders."""
    # DICOM patients are hashed with the issuer of their ID, which is mostly empty; those of pictures have none.
    hashed = {hash_identity("patient", prefix + name): split for name, split in named.items() for prefix in ("\0", "")}
    known = hashed | named
    split_of: dict[str, str] = {}
    for case in cases:
        split = known.get(case.patient) or named.get(case.name)
        if split and split_of.setdefault(case.patient, split) != split:
            raise DatasetError(
                case.name,
                found=f"in {split}, another case of its patient in {split_of[case.patient]}",
                expected="each patient in one split",
                remedy="move all its cases to one",
            )
    return split_of


def _parse_labels(entries: list[str]) -> dict[int, Category | None]:
    labels: dict[int, Category | None] = {}
    for entry in entries:
        value, _, name = entry.partition("=")
        if not value.isdigit() or int(value) == 0:
            raise DatasetError(
                f"--label {entry}", found="no label", expected="e.g. 1=bronchiectasis", remedy="correct it"
            )
        labels[int(value)] = None if name == "background" else category_by_name(name)
    return labels


def _say(folder: Path, name: str) -> None:
    for json_file in sorted((folder / "annotations").glob("*.json")):
        content = json.loads(json_file.read_text())
        counts = Counter(annotation["category_id"] for annotation in content["annotations"])
        lesions = ", ".join(f"{counts[category.coco_id]} {category.name}" for category in CATEGORIES)
        patients = len({image["patient"] for image in content["images"]})
        logger.info(
            "%s_%s: %d patients, %d slices, %s", name, json_file.stem, patients, len(content["images"]), lesions
        )
    logger.info("written to %s", folder)


if __name__ == "__main__":
    run_tool(main)
