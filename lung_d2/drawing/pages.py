"""What the report pages share: the template around them, numbers as text, and embedded pictures."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from lung_d2.categories import Category

UNKNOWN = "–"


def render_page(package: str, template: str, content: Mapping[str, Any]) -> str:
    """Fill a page template, which may extend ``page.html`` of this package.

    Args:
        package: The package whose folder ``templates`` holds it, as ``lung_d2.findings``.
        template: Its file name.
        content: By name; text is escaped.

    Returns:
        The HTML, which needs no other file.
    """
    return _environment(package).get_template(template).render(content)


@functools.cache
def _environment(package: str) -> Environment:
    """Return what reads and keeps the templates of a package, once in each process."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("lung_d2.drawing")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["number"] = show_number
    environment.filters["ml"] = show_ml
    return environment


def show_number(value: float | None, digits: int = 1) -> str:
    """Return a number as people read it; a dash where it is unknown."""
    if value is None:
        return UNKNOWN
    least = 10.0**-digits
    return f"< {least:.{digits}f}" if 0 < value < least / 2 else f"{value:,.{digits}f}"


def show_ml(value: float | None) -> str:
    """Return a volume in ml with three digits that count, but at most two decimals; a dash where it is unknown."""
    if value is None or value < 9.995:
        return show_number(value, 2)
    return show_number(value, 1 if value < 99.95 else 0)


def describe_category(category: Category) -> dict[str, str]:
    """Return the ``key`` of a category in files, its ``name`` in a sentence, and its ``color`` for CSS."""
    return {
        "key": category.name,
        "name": category.name.replace("_", " "),
        "color": "#{:02x}{:02x}{:02x}".format(*category.color),
    }


def embed_jpeg(picture: npt.NDArray[np.uint8], quality: int) -> str:
    """Return an RGB picture ``(H, W, 3)`` as the data URI of a JPEG of this quality, 0 to 100."""
    # Colours at full resolution: outlines are a pixel wide.
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    encoded = cv2.imencode(".jpg", picture[..., ::-1], options)[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def embed_svg(svg: str) -> str:
    """Return an SVG document as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")
