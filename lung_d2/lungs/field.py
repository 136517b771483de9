"""The lung field of a CT volume, and its finders: ours, a label file, lungmask, or one of another package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lung_d2.ct.headers import volume_suffix
from lung_d2.ct.labels import find_label_file, read_labels_on
from lung_d2.ct.volume import CTVolume
from lung_d2.errors import ConfigError, DependencyError, GeometryError, InputError

BUILTIN, LUNGMASK = "builtin", "lungmask"
ENTRY_POINTS = "lung_d2.lung_finders"
"""Entry point group: each name is a choice, each value a :class:`LungFinder`."""
_HIGHEST_LABEL = 2


@dataclass(frozen=True, eq=False)
class LungField:
    """Where the lungs are.

    Attributes:
        labels: uint8 ``[Z, Y, X]``, read-only: 0 outside, 1 the patient's right lung, 2 the left.
        spacing_mm: (z, y, x), that of the volume.

    Raises:
        GeometryError: ``labels`` is not such an array.
    """

    labels: npt.NDArray[np.uint8] = field(repr=False)
    spacing_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Check the labels and make them read-only."""
        if self.labels.ndim != 3 or self.labels.dtype != np.uint8 or self.labels.max(initial=0) > _HIGHEST_LABEL:
            raise GeometryError(
                "LungField",
                found=f"{self.labels.dtype} labels of {self.labels.ndim} dimensions",
                expected="uint8 of three, from 0 to 2",
                remedy="convert them",
            )
        self.labels.setflags(write=False)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Both lungs, bool ``[Z, Y, X]``."""
        mask: npt.NDArray[np.bool_] = self.labels > 0
        return mask

    def box(self, margin_mm: float = 0.0) -> tuple[slice, slice]:
        """Return the rows and columns that hold the lungs on all slices.

        Args:
            margin_mm: Added on each side, as far as the picture goes.

        Returns:
            Rows and columns; empty slices where there are no lungs.
        """
        filled = np.asarray(self.labels.any(axis=0))
        spans = []
        for other, size, mm in ((1, filled.shape[0], self.spacing_mm[1]), (0, filled.shape[1], self.spacing_mm[2])):
            hits = np.flatnonzero(filled.any(axis=other))
            margin = round(margin_mm / mm)
            ends = (max(0, int(hits[0]) - margin), min(size, int(hits[-1]) + 1 + margin)) if hits.size else (0, 0)
            spans.append(slice(*ends))
        return spans[0], spans[1]


class LungFinder(Protocol):
    """Anything that finds the lungs of a CT; picklable, such as a function of a module."""

    def __call__(self, volume: CTVolume, /) -> LungField:
        """Find the lungs.

        Args:
            volume: The CT, of any number of slices.

        Returns:
            The lung field on the grid of the volume; all 0 if there are no lungs.
        """


def find_lungs(volume: CTVolume) -> LungField:
    """Find the lungs by our own segmentation, see :func:`lung_d2.lungs.segmentation.segment_lungs`."""
    from lung_d2.lungs.segmentation import segment_lungs  # here: importers of pictures do not need it

    return LungField(segment_lungs(volume), volume.spacing_mm)


@dataclass(frozen=True)
class LabelFileFinder:
    """Reads the lungs from a label volume of another tool.

    Attributes:
        path: Right lung 1, left lung 2, on the grid of the CT. A file, or a folder that holds one for each series,
            named by its SeriesInstanceUID or its hash.
    """

    path: Path

    def __call__(self, volume: CTVolume, /) -> LungField:
        """Read the lungs.

        Raises:
            InputError: The file is missing, lies on another grid, or has other values.
        """
        path = find_label_file(self.path, volume)
        labels = read_labels_on(path, volume)
        if labels.max() > _HIGHEST_LABEL:
            raise InputError(
                path,
                found=f"labels up to {labels.max()}",
                expected="1 right lung, 2 left lung",
                remedy="give those, or the lobes as lobes",
            )
        return LungField(labels.astype(np.uint8), volume.spacing_mm)


def find_lungs_by_lungmask(volume: CTVolume) -> LungField:
    """Find the lungs by the network R231 of lungmask (github.com/JoHof/lungmask, Apache-2.0).

    Raises:
        DependencyError: lungmask is not installed, or it cannot load its weights.
    """
    labels = np.asarray(_load_lungmask().apply(_to_itk(volume)), np.uint8)
    return LungField(labels, volume.spacing_mm)


@cache
def _load_lungmask() -> Any:
    """Load the network of lungmask, once in a process."""
    try:
        from lungmask import LMInferer
    except ImportError as error:
        raise _lungmask_missing() from error
    try:
        return LMInferer(modelname="R231", tqdm_disable=True)
    except (OSError, RuntimeError) as error:
        raise DependencyError(
            "lungmask",
            found=f"its weights cannot be loaded ({type(error).__name__})",
            remedy="start it once where it can download them, or copy them into torch's cache",
        ) from error


def _lungmask_missing() -> DependencyError:
    return DependencyError(
        "lungmask", found="not installed", expected="it, for --lungs lungmask", remedy='run "pip install lungmask"'
    )


def _to_itk(volume: CTVolume) -> object:
    """Return the volume as SimpleITK has it, so that lungmask turns it as its network needs."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(volume.hu)
    row, column = (volume.affine_lps[:3, axis] / np.linalg.norm(volume.affine_lps[:3, axis]) for axis in (0, 1))
    # The step of a tilted stack is not perpendicular to its slices, which ITK cannot express.
    image.SetDirection(np.stack([row, column, np.cross(row, column)], axis=1).ravel().tolist())
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.affine_lps[:3, 3].tolist())
    return image


def finder_names() -> list[str]:
    """Return the names of all finders: ours, then those of other packages."""
    return [*_FINDERS, *(entry.name for entry in entry_points(group=ENTRY_POINTS))]


def parse_finder(text: str) -> str | Path:
    """Return what a user chose: the name of a finder as it is, anything else as the path of a label volume.

    Raises:
        ConfigError: It is neither a finder nor a path that exists or ends as a volume does.
        DependencyError: It is lungmask, which is not installed.
    """
    if text == LUNGMASK and find_spec("lungmask") is None:
        raise _lungmask_missing()
    if text in finder_names():
        return text
    if not volume_suffix(text) and not Path(text).exists():
        raise _no_such_finder(text)
    return Path(text)


def _no_such_finder(choice: str) -> ConfigError:
    expected = f"{', '.join(finder_names())}, or a label volume"
    return ConfigError(f"lungs {choice}", found="no such finder", expected=expected, remedy="choose one")


def choose_finder(choice: str | Path) -> LungFinder:
    """Return the finder of a name, or the one that reads a label volume or a folder of them.

    Raises:
        ConfigError: No finder has this name.
    """
    if isinstance(choice, Path):
        return LabelFileFinder(choice)
    if choice in _FINDERS:
        return _FINDERS[choice]
    for entry in entry_points(group=ENTRY_POINTS, name=choice):
        finder: LungFinder = entry.load()
        return finder
    raise _no_such_finder(choice)


_FINDERS: Mapping[str, LungFinder] = {BUILTIN: find_lungs, LUNGMASK: find_lungs_by_lungmask}
