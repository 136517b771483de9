from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lung_d2.data.importers.coco_masks import decode_segmentation
from lung_d2.data.importers.shapes import Canvas
from lung_d2.errors import DatasetError
from lung_d2.masks import encode_mask

SIZE = (16, 20)
CANVAS = Canvas(SIZE)
SQUARE = [2, 3, 8, 3, 8, 7, 2, 7]  # 6 x 4 pixels from (2, 3) on


def rle(counts):
    return {"size": list(SIZE), "counts": counts}


def decode(segmentation):
    return decode_segmentation(segmentation, CANVAS, "coco.json: annotation 5")


@pytest.mark.parametrize("seed", range(5))
def test_compressed_rle_is_read_as_it_was_written(seed):
    mask = np.random.default_rng(seed).random(SIZE) < (0.02, 0.3, 0.5, 0.9, 1.0)[seed]
    assert np.array_equal(decode(encode_mask(mask)), mask)


def test_long_runs_are_read():
    mask = np.zeros((900, 1100), bool)
    mask[3:890, 5:1090] = True
    mask[400:500, 20:30] = False
    assert np.array_equal(decode_segmentation(encode_mask(mask), Canvas(mask.shape), "x"), mask)


def test_runs_go_by_columns_and_begin_with_background():
    mask = decode(rle([17, 2, 16 * 20 - 19]))
    assert np.argwhere(mask).tolist() == [[1, 1], [2, 1]]


def test_polygons_add_up():
    """Where they overlap, too: the even-odd rule goes for each alone."""
    assert decode([SQUARE, [4, 3, 10, 3, 10, 7, 4, 7]])[3:7, 2:10].all()


def test_polygon_is_nearly_that_of_pycocotools():
    ring = [1.2, 2.4, 15.8, 3.6, 11.2, 13.8, 4.4, 9.2]
    wanted = coco_mask.decode(coco_mask.frPyObjects([ring], *SIZE))[..., 0] > 0
    assert np.count_nonzero(decode([ring]) != wanted) <= 2
    assert wanted.sum() > 80


NAN, INFINITE = float("nan"), float("inf")
HOSTILE = {
    "nothing": (None, "no segmentation, a box at most; expected polygons or RLE; .*--label NAME=background"),
    "empty": ([], "no segmentation"),
    "flat polygon": (SQUARE, "a segmentation of another form"),
    "text": ("abc", "a segmentation of another form"),
    "number": (5, "a segmentation of another form"),
    "texts in a polygon": ([["1"] * 6], "a polygon of other than numbers"),
    "odd polygon": ([SQUARE[:-1]], "a polygon of 7 numbers; expected an even number"),
    "empty polygon": ([[]], r"0 point\(s\)"),
    "two points": ([SQUARE[:4]], r"2 point\(s\)"),
    "no area": ([[1, 1, 5, 5, 9, 9]], "no area"),
    "NaN": ([[1, 1, NAN, 5, 9, 2]], "a coordinate that is not finite"),
    "infinite": ([[1, 1, INFINITE, 5, 9, 2]], "a coordinate that is not finite"),
    "huge number": ([[1, 1, 10**400, 5, 9, 2]], "a coordinate that is not finite"),
    "outside": ([[30, 1, 40, 1, 40, 9]], "a polygon outside"),
    "RLE of another size": (encode_mask(np.ones((20, 16), bool)), r"RLE of size \[20, 16\]; expected \[16, 20\]"),
    "RLE without size": ({"counts": [320]}, "RLE of size None"),
    "RLE without counts": ({"size": list(SIZE)}, "broken RLE"),
    "short RLE": (rle([5, 5]), "RLE of 10 pixels; expected 320"),
    "short compressed RLE": (rle("55"), "RLE of 10 pixels"),
    "empty compressed RLE": (rle(""), "RLE of 0 pixels"),
    "long RLE": (rle([0, 10**12]), "RLE of 1000000000000 pixels"),
    "negative RLE": (rle([-5, 325]), "broken RLE"),
    "RLE of fractions": (rle([0.5, 319.5]), "broken RLE"),
    "RLE that breaks off": (rle("o"), "truncated RLE counts"),
    "RLE of other letters": (rle("é~"), "broken RLE"),
    "endless RLE": (rle("o" * 50), "broken RLE"),
}


@pytest.mark.parametrize(("segmentation", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_mask_is_refused(segmentation, message):
    with pytest.raises(DatasetError, match=f"^coco.json: annotation 5: {message}"):
        decode(segmentation)
