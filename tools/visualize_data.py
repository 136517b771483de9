#!/usr/bin/env python
r"""Draw what the mapper gives the model: each slice as it is tested on, and as training sees it, in one sheet.

python tools/visualize_data.py --config-file configs/mask_rcnn_R_50_FPN_lung_scratch.yaml --output sheet.png
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from lung_d2 import load_config, register_lung_datasets
from lung_d2.categories import Categories
from lung_d2.command_line import run_tool
from lung_d2.data import CTDatasetMapper
from lung_d2.data.augment.copy_paste import DonorPool
from lung_d2.data.register import check_registered
from lung_d2.drawing.sheet import Sample, draw_sheet
from lung_d2.errors import OutputError
from lung_d2.files import create_folder, replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

Record = dict[str, Any]
logger = logging.getLogger("visualize_data")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="config whose mapper is shown")
    parser.add_argument("--dataset", help="data set (default: the first of DATASETS.TRAIN of the config)")
    parser.add_argument("--output", required=True, type=Path, help="picture to write (.png)")
    parser.add_argument("--count", type=int, default=6, help="slices, a row each (default 6)")
    parser.add_argument("--repeats", type=int, default=3, help="augmented versions of each (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice and the augmentation (default 0)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser


def main() -> None:
    """Choose slices, map them, draw the sheet."""
    args = build_parser().parse_args()
    if args.output.suffix.lower() != ".png" or min(args.count, args.repeats) < 1:
        raise OutputError(
            args.output, found="no .png, or a --count or --repeats below 1", remedy="e.g. --output sheet.png --count 6"
        )
    check_output(args.output)
    register_lung_datasets()
    cfg = load_config(args.config_file, args.opts)
    name = args.dataset or cfg.DATASETS.TRAIN[0]
    check_registered([name])
    every, categories = DatasetCatalog.get(name), MetadataCatalog.get(name).categories
    records = choose_records(every, args.count, args.seed)
    shown, trained = CTDatasetMapper(cfg, is_train=False), CTDatasetMapper(cfg, is_train=True, donors=DonorPool(every))
    unchanged = CTDatasetMapper(**(CTDatasetMapper.from_config(cfg, is_train=True) | plain(shown)))
    np.random.seed(args.seed)  # Detectron2's augmentations draw from numpy's global state
    rows = [
        [
            sample_of(unchanged(record), categories, "as tested"),
            *(sample_of(trained(record), categories) for _ in range(args.repeats)),
        ]
        for record in records
    ]
    save_picture(draw_sheet(rows, f"{name}: {cfg.INPUT.CT.GREY}, {cfg.INPUT.CT.CHANNELS}"), args.output)
    logger.info("%d slices of %s drawn to %s", len(records), name, args.output)


def plain(mapper: CTDatasetMapper) -> dict[str, Any]:
    """Return what makes a training mapper give the images of ``mapper``, which tests."""
    return {"augmentations": mapper.augmentations.augs, "hu_jitter": 0.0, "intensity": None, "copy_paste": None}


def choose_records(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """Choose slices at random, three of four with annotations where there are as many."""
    rng = np.random.default_rng(seed)
    order = [records[index] for index in rng.permutation(len(records))]
    annotated = [record for record in order if record["annotations"]]
    empty = [record for record in order if not record["annotations"]]
    wanted = min(len(annotated), max(count - len(empty), round(0.75 * count)))
    return [*annotated[:wanted], *empty[: count - wanted]]


def sample_of(mapped: Record, categories: Categories, how: str = "augmented") -> Sample:
    """Return what is drawn of a mapped record."""
    instances = mapped["instances"]
    lesions, undecided = [], None
    crowds = instances.gt_crowd.tolist() if instances.has("gt_crowd") else [False] * len(instances)
    for index, is_crowd in enumerate(crowds):
        mask = instances.gt_masks.tensor[index].numpy()
        if is_crowd:
            undecided = mask if undecided is None else undecided | mask
        else:
            category = categories[int(instances.gt_classes[index])]
            lesions.append((category, mask, instances.gt_boxes.tensor[index].tolist()))
    image = mapped["image"][1].numpy()  # the slice itself, whether its neighbours are beside it or not
    caption = f"{mapped['series'][:6]} {mapped['slice_index']}, {how} {image.shape[0]} x {image.shape[1]}"
    return Sample(image, lesions, caption, undecided)


def check_output(path: Path) -> None:
    """Make the folder of a picture, and raise :class:`OutputError` where no file of this name can be in it."""
    try:
        if path.is_dir():
            raise OutputError(path, found="a folder", expected="a picture to write", remedy="name a file in it")
    except OSError as error:
        found = f"cannot be written ({error.strerror or type(error).__name__})"
        raise OutputError(path, found=found, remedy="name another") from error
    create_folder(path.resolve().parent)


def save_picture(picture: npt.NDArray[np.uint8], path: Path) -> None:
    """Save an RGB picture ``(H, W, 3)`` as PNG, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with replace_file(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


if __name__ == "__main__":
    run_tool(main)
