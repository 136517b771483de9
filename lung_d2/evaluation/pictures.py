"""The pictures of an evaluation: its curves as SVG, and its best and worst slices, truth beside detections."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import FixedLocator, NullLocator
from pycocotools import mask as coco_mask

from lung_d2.categories import Categories, Category
from lung_d2.ct.grey import GreyLevels
from lung_d2.data.planes import read_plane
from lung_d2.drawing.pages import embed_jpeg
from lung_d2.drawing.sheet import Sample, draw_sample
from lung_d2.drawing.svg_chart import DARK, FAINT, open_chart
from lung_d2.errors import DatasetError
from lung_d2.evaluation.figures import ALL
from lung_d2.evaluation.results import Detections
from lung_d2.evaluation.truth import Truth
from lung_d2.masks import decode_mask

_SIZE_INCHES = (4.4, 3.3)


def chart_colors(categories: Categories) -> dict[str, str]:
    """Return the colour of each category in charts, in their order, and that of all of them together."""
    return {category.name: "#{:02x}{:02x}{:02x}".format(*category.color) for category in categories} | {ALL: DARK}


def draw_froc(
    curves: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, Any],
    rates: Sequence[float],
    unit: str,
    colors: Mapping[str, str],
) -> str:
    """Draw sensitivity against false positives, with the interval at each rate.

    Args:
        curves: Of each category, as in ``evaluation.json``.
        figures: Of each category and rate, as there.
        rates: False positives for each unit.
        unit: ``"image"`` or ``"series"``.
        colors: See :func:`chart_colors`.

    Returns:
        An SVG document.
    """
    with open_chart(_SIZE_INCHES) as (axes, svg):
        least = rates[0] / 2
        for name, curve in _drawn(curves, colors):
            false = [max(value, least) for value in curve["false_positives"]]
            end = [max(false[-1], rates[-1])] if false else []
            axes.step(
                [least, *false, *end],
                [0, *curve["sensitivity"], *curve["sensitivity"][-1:]],
                where="post",
                color=colors[name],
                linewidth=1.6,
            )
            own = {rate: figures[name][f"{rate:g}"] for rate in rates}
            for rate, figure in own.items():
                if figure["low"] is not None:
                    axes.plot([rate, rate], [figure["low"], figure["high"]], color=colors[name], linewidth=0.8)
            axes.plot(list(own), [one["value"] for one in own.values()], "o", color=colors[name], markersize=3.5)
        axes.set_xscale("log", base=2)
        axes.set_xlim(least, rates[-1] * 1.15)
        axes.xaxis.set_major_locator(FixedLocator(list(rates)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([_show_rate(rate) for rate in rates])
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"false positives per {unit}")
        axes.set_ylabel("lesions found")
    return svg.getvalue()


def draw_precision_recall(
    recall: Sequence[float], precisions: Mapping[str, Sequence[float]], colors: Mapping[str, str]
) -> str:
    """Draw the best precision at each recall or beyond, of each category."""
    with open_chart(_SIZE_INCHES) as (axes, svg):
        for name, precision in _drawn(precisions, colors):
            axes.plot(recall, precision, color=colors[name], linewidth=1.6)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
    return svg.getvalue()


def draw_reliability(diagrams: Mapping[str, Mapping[str, Sequence[float]]], colors: Mapping[str, str]) -> str:
    """Draw the share of correct detections against their mean score; a dot is the larger the more detections it has."""
    with open_chart(_SIZE_INCHES) as (axes, svg):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle="--")
        for name, diagram in _drawn(diagrams, colors):
            most = max(diagram["detections"])
            sizes = [12 + 110 * count / most for count in diagram["detections"]]
            axes.plot(diagram["mean_score"], diagram["share_correct"], color=colors[name], linewidth=1.2)
            axes.scatter(diagram["mean_score"], diagram["share_correct"], sizes, color=colors[name], alpha=0.8)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("score")
        axes.set_ylabel("share correct")
    return svg.getvalue()


def _drawn(by_category: Mapping[str, Any], colors: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Return what is drawn: all together only where there is more than one category."""
    own = [(name, by_category[name]) for name in colors if name != ALL and name in by_category]
    return [(ALL, by_category[ALL]), *own] if len(own) > 1 and ALL in by_category else own


def _show_rate(rate: float) -> str:
    return f"{rate:g}" if rate >= 1 else f"1/{round(1 / rate)}"


logger = logging.getLogger(__name__)

_TILE_PX = 300
_GAP_PX = 3
_JPEG_QUALITY = 82
_NO_PICTURE = 70  # grey level behind the outlines where a picture is missing


@dataclass(frozen=True)
class SlicePicture:
    """A picture to embed.

    Attributes:
        source: Data URI of a JPEG: lesions on the left, detections on the right.
        note: How good the slice is.
        place: Which slice it is.
    """

    source: str
    note: str
    place: str


def draw_slices(
    truth: Truth, detections: Detections, ranked: Sequence[Mapping[str, Any]], score_threshold: float
) -> Iterator[SlicePicture]:
    """Draw ranked slices, see :func:`lung_d2.evaluation.slice_level.rank_slices`.

    No figure needs the pictures: a slice whose picture is missing is drawn without, and says so.

    Raises:
        DatasetError: A picture of the data set is broken.
    """
    missing = [entry["file_name"] for entry in ranked if not truth.slices[entry["slice"]].path.is_file()]
    if missing:
        logger.warning("pictures that are not there, drawn without: %s", ", ".join(missing))
    for entry in ranked:
        drawn = draw_slice(truth, detections, entry["slice"], score_threshold)
        note = f"Dice {entry['dice']:.2f}: {entry['lesion']:,} px lesion, {entry['missed']:,} missed"
        yield SlicePicture(
            embed_jpeg(drawn, _JPEG_QUALITY),
            f"{note}, {entry['false']:,} false",
            f"{entry['dataset']} · {entry['file_name']}{' · picture missing' if entry['file_name'] in missing else ''}",
        )


def draw_slice(truth: Truth, detections: Detections, number: int, score_threshold: float) -> npt.NDArray[np.uint8]:
    """Draw a slice twice: with its lesions, undecided regions hatched, and with the detections that count.

    Args:
        truth: What is there.
        detections: What was found.
        number: Of the slice.
        score_threshold: Detections of at least this score count.

    Returns:
        uint8 RGB ``(H, W, 3)``.
    """
    grey = _read_grey(truth, number)
    lesions = [
        (category, decode_mask(region.mask), _corners(region.box))
        for place, category in enumerate(truth.categories)
        for region in truth.lesions.get((number, place), ())
    ]
    unknown = [
        region.mask for place in range(len(truth.categories)) for region in truth.undecided.get((number, place), ())
    ]
    undecided = decode_mask(coco_mask.merge(unknown)) if unknown else None
    tiles = [draw_sample(Sample(grey, lesions, undecided=undecided), _TILE_PX)]
    tiles.append(draw_sample(Sample(grey, list(_found(truth, detections, number, score_threshold))), _TILE_PX))
    return np.hstack([tiles[0], np.full((tiles[0].shape[0], _GAP_PX, 3), 255, np.uint8), tiles[1]])


def _found(
    truth: Truth, detections: Detections, number: int, score_threshold: float
) -> Iterator[tuple[Category, npt.NDArray[np.bool_], tuple[float, ...]]]:
    for place, category in enumerate(truth.categories):
        for index in detections.by_place.get((number, place), ()):
            if detections.scores[index] >= score_threshold:
                yield category, decode_mask(detections.masks[index]), _corners(detections.boxes[index].tolist())


def _corners(box: Sequence[float]) -> tuple[float, ...]:
    x, y, width, height = box
    return x, y, x + width, y + height


def _read_grey(truth: Truth, number: int) -> npt.NDArray[np.uint8]:
    one = truth.slices[number]
    root = next(source.image_root for source in truth.sources if source.name == one.dataset)
    if not one.path.resolve().is_relative_to(root.resolve()):
        raise DatasetError(one.file_name, found="outside the data set", remedy="prepare the data set again")
    if not one.path.is_file():
        return np.full(one.shape, _NO_PICTURE, np.uint8)
    plane = read_plane(one.path)
    if plane.shape != one.shape:
        raise DatasetError(
            one.path, found=f"a slice of {plane.shape}", expected=f"{one.shape}", remedy="prepare the data set again"
        )
    return plane.astype(np.uint8) if plane.dtype == np.uint8 else GreyLevels().apply(plane)
