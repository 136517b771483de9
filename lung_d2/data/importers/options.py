"""Command line options that importers of pictures share."""

from __future__ import annotations

import argparse
import math

from lung_d2.data.importers.picture_files import Spacing
from lung_d2.data.importers.pixel_origin import AUTO, CENTRE, CORNER
from lung_d2.errors import ConfigError

_MAX_SPACING_MM = 10.0  # a chest of 512 pixels would be 5 m wide


def add_drawing_arguments(parser: argparse.ArgumentParser, images: str) -> None:
    """Add the options of every tool that draws on pictures; ``images``: where those are looked for by default."""
    add_images_argument(parser, images)
    add_spacing_argument(parser)
    add_origin_argument(parser)
    add_skip_argument(parser)


def add_images_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the option that names the folder of the pictures; ``default`` says where they are looked for without it."""
    parser.add_argument("--images", metavar="FOLDER", help=f"folder of the pictures, in SOURCE (default: {default})")


def add_spacing_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that tells the size of pixels which the pictures do not."""
    parser.add_argument(
        "--spacing-mm",
        metavar="ROW,COLUMN",
        help="distance of pixel centres along a column and along a row, or one number for both (default: unknown)",
    )


def parse_spacing(text: str | None) -> Spacing | None:
    """Parse ``--spacing-mm``: ``"0.7"`` or ``"0.7,0.65"`` (row, column).

    Raises:
        ConfigError: It is neither, or no spacing in mm that can be.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(math.isfinite(value) and 0 < value <= _MAX_SPACING_MM for value in values):
        raise ConfigError(
            f"--spacing-mm {text}", found="no spacing", expected="mm, as 0.7 or 0.7,0.65", remedy="correct it"
        )
    return values[0], values[-1]


def add_origin_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what the coordinates of a tool mean."""
    parser.add_argument(
        "--pixel-origin",
        choices=(AUTO, CORNER, CENTRE),
        default=AUTO,
        help="what (0, 0) is: the picture's corner, as COCO, CVAT and labelme draw, or the centre of its first pixel, "
        "as in contours that a script took from cv2.findContours (default: what the contours look like)",
    )


def add_skip_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what becomes of shapes which are no areas."""
    parser.add_argument(
        "--skip-shapes",
        action="store_true",
        help="leave out shapes that give no mask (points, lines, boxes), with a count, instead of refusing them",
    )
