"""The whole way from a source on disk to detections on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.ct import read_volume, slice_image
from lung_d2.ct.headers import is_dicom, list_files
from lung_d2.ct.identity import hash_identity
from lung_d2.ct.volume import CTVolume
from lung_d2.data.folders import create_folder, replace_folder, restore_folder
from lung_d2.data.planes import PICTURES, list_pictures, read_picture
from lung_d2.errors import InputError, OutputError
from lung_d2.lesions.detections import SliceDetections
from lung_d2.report.coco_results import build_image_index, build_results
from lung_d2.report.overlay import draw_overlay

if TYPE_CHECKING:
    from lung_d2.engine import CTPredictor

DEFAULT_SCORE = 0.5

Source = str | Path | Sequence[str | Path] | CTVolume


@dataclass(frozen=True)
class Recognition:
    """What was found on one series, or on pictures of slices.

    Attributes:
        name: Hash that names the series outside DICOM, or that of the pictures' bytes.
        planes: The slices, ``(H, W)`` each: int16 HU, or uint8 grey of pictures.
        detections: One entry for each slice, in order.
        volume: The series; None for pictures.
    """

    name: str
    planes: Sequence[npt.NDArray[np.generic]]
    detections: tuple[SliceDetections, ...]
    volume: CTVolume | None = None

    def write(self, output: str | Path, score: float = DEFAULT_SCORE) -> Path:
        """Write ``OUTPUT/NAME/`` with ``detections.json``, ``slices.json`` and ``overlays/``.

        Args:
            output: Folder; created.
            score: Overlays are drawn of slices with detections of at least this score, and show those.
                ``detections.json`` holds all that the model reports.

        Returns:
            The result folder, which is whole or not there.

        Raises:
            OutputError: It cannot be written.
        """
        final = Path(output) / self.name
        staging = final.with_name(f".{self.name}.partial")
        create_folder(Path(output))
        try:
            restore_folder(final)
            shutil.rmtree(staging, ignore_errors=True)
            self._write_files(staging, score)
            replace_folder(staging, final)
        except OSError as error:
            found = f"cannot be written ({error.strerror or error})"
            raise OutputError(final, found=found, remedy="check the disk space and the permissions") from error
        return final

    def _write_files(self, staging: Path, score: float) -> None:
        (staging / "overlays").mkdir(parents=True)
        (staging / "detections.json").write_text(json.dumps(build_results(self.detections)))
        index = build_image_index([self._image_record(index) for index in range(len(self.planes))])
        (staging / "slices.json").write_text(json.dumps(index))
        for found in self.detections:
            if len(shown := found.above(score)):
                picture = self.draw(shown)
                path = staging / "overlays" / f"slice_{found.slice_index:04d}.png"
                if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
                    raise OSError(f"no picture of slice {found.slice_index}")

    def draw(self, detections: SliceDetections) -> npt.NDArray[np.uint8]:
        """Draw the detections of one slice over it; returns uint8 RGB."""
        index = detections.slice_index
        caption = f"slice {index} (0-{len(self.planes) - 1})"
        if self.volume is None:
            return draw_overlay(self.planes[index], detections, caption=caption)
        return draw_overlay(
            self.planes[index],
            detections,
            caption=f"{caption}, {self.volume.slice_positions_mm[index]:.1f} mm",
            pixel_spacing_mm=(self.volume.spacing_mm[1], self.volume.spacing_mm[2]),
            sides=_sides(self.volume),
        )

    def _image_record(self, index: int) -> dict[str, Any]:
        height, width = self.planes[index].shape
        record: dict[str, Any] = {"id": index, "height": int(height), "width": int(width), "file_name": ""}
        if self.volume is not None:
            record["slice_position_mm"] = float(self.volume.slice_positions_mm[index])
            record["pixel_spacing_mm"] = list(self.volume.spacing_mm[1:])
            record["sop_instance_uid"] = self.volume.sop_instance_uids[index]
        return record


def recognize(source: Source, predictor: CTPredictor, series_uid: str | None = None) -> Recognition:
    """Detect the lesions of a series or of pictures of slices.

    Args:
        source: A :class:`CTVolume`; a DICOM folder, DICOM files or a volume file (NIfTI, NRRD, MetaImage); or 8-bit
            pictures of slices, or a folder of them and no DICOM, for a model trained on such.
        predictor: Model and grey levels.
        series_uid: Which series, where the source holds several.

    Returns:
        The detections of each slice.

    Raises:
        InputError: The source cannot be read rightly.
    """
    pictures = _picture_files(source)
    if pictures:
        return _recognize_pictures(pictures, predictor)
    volume = source if isinstance(source, CTVolume) else read_volume(source, series_uid=series_uid)
    slice_image(volume, 0, grey=predictor.grey, channels=predictor.channels)  # refused before the progress bar opens
    return Recognition(
        name=volume.series_hash, planes=list(volume.hu), detections=tuple(predictor(volume)), volume=volume
    )


def _recognize_pictures(pictures: Sequence[Path], predictor: CTPredictor) -> Recognition:
    planes = [read_picture(path) for path in pictures]
    found = []
    for index, (path, plane) in enumerate(zip(pictures, planes, strict=True)):
        try:
            found.append(predictor.predict_picture(plane, index))
        except InputError as error:
            raise error.at(path) from error
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures]
    return Recognition(name=hash_identity("pictures", "\n".join(digests)), planes=planes, detections=tuple(found))


def _sides(volume: CTVolume) -> str:
    """Return the sides of the body at the left and right edge of a slice (LPS: x to the left, y back, z up)."""
    direction = volume.affine_lps[:3, 0]
    axis = int(np.argmax(np.abs(direction)))
    pair = ("RL", "AP", "FH")[axis]
    return pair if direction[axis] > 0 else pair[::-1]


def _picture_files(source: Source) -> list[Path]:
    if isinstance(source, CTVolume):
        return []
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(path) for path in source]
    if len(paths) == 1 and paths[0].is_dir():
        pictures = list_pictures(paths[0])
        return [] if pictures and any(map(is_dicom, list_files(paths[0]))) else pictures
    pictures = [path for path in paths if path.suffix.lower() in PICTURES]
    if pictures and len(pictures) < len(paths):
        raise InputError(pictures[0], found="a picture among other files", remedy="give pictures, or a series, alone")
    return pictures
