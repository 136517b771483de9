"""What was found on one source, and every output of it on disk.

::

    OUTPUT/NAME/
        detections.json  slices.json                 what the model reports, as COCO results, and what image_id means
        overlays/slice_0047.png                      slices with detections
        findings.json  lesions.csv  report.html      the lesions and their measures
        lesions.nii.gz                               the lesions as labels
        segmentation_CATEGORY.dcm                    DICOM SEG and SR, of a DICOM source alone
        structured_report.dcm
        manifest.json                                with what, how long, and which outputs were refused; written last

Pictures have no mm: of these only the first two lines and the manifest are written.
"""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from lung_d2.categories import CATEGORIES, Categories
from lung_d2.ct.headers import show_uid
from lung_d2.ct.volume import CTVolume
from lung_d2.drawing.marks import sides_of
from lung_d2.errors import OutputError, Warning
from lung_d2.files import create_folder, replace_folder, restore_folder, write_json
from lung_d2.findings.document import Findings
from lung_d2.findings.files import build_image_index, build_results, write_findings, write_lesion_nifti
from lung_d2.findings.manifest import MANIFEST_NAME, ModelIdentity, StageClock, build_manifest
from lung_d2.findings.pictures import draw_overlay
from lung_d2.lesions.detections import SliceDetections
from lung_d2.lesions.lesion import Lesion
from lung_d2.lesions.lobes import LungLabels
from lung_d2.lesions.measure import Measurement
from lung_d2.processes import count_cores
from lung_d2.recognition.settings import RecognitionSettings
from lung_d2.recognition.summary import hide_paths

logger = logging.getLogger(__name__)

LABELS_NAME = "lesions.nii.gz"
_DRAWERS = 4  # threads, at most: a picture takes some MB
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Recognition:
    """What was found on one series, or on pictures of slices.

    Attributes:
        name: Hash that names the series outside DICOM, or that of the pictures' bytes.
        planes: The slices, ``(H, W)`` each: int16 HU, or uint8 grey of pictures.
        detections: One entry for each slice, in order.
        model: What was run.
        settings: How.
        seconds: By stage.
        findings: The lesions in 3-D and their measures; None for pictures, which have no mm.
        categories: What the model tells apart.
    """

    name: str
    planes: Sequence[npt.NDArray[np.generic]] = field(repr=False)
    detections: tuple[SliceDetections, ...] = field(repr=False)
    model: ModelIdentity
    settings: RecognitionSettings
    seconds: Mapping[str, float]
    findings: Findings | None = field(default=None, repr=False)
    categories: Categories = CATEGORIES

    @property
    def volume(self) -> CTVolume | None:
        """The series; None for pictures."""
        return self.findings.volume if self.findings else None

    @property
    def lungs(self) -> LungLabels | None:
        """Where the lungs are; None for pictures."""
        return self.findings.lungs if self.findings else None

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """The lesions; none for pictures."""
        return self.findings.lesions if self.findings else ()

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """The measures of each lesion, in their order."""
        return self.findings.measurements if self.findings else ()

    def write(self, output: str | Path, fingerprint: str = "") -> Path:
        """Write ``OUTPUT/NAME/`` with every output, see :func:`write_recognition`."""
        return write_recognition(self, output, fingerprint)


def write_recognition(recognition: Recognition, output: str | Path, fingerprint: str = "") -> Path:
    """Write ``OUTPUT/NAME/``, whole or not at all; an earlier one is replaced.

    A DICOM object that cannot refer to the source is left out, and why stands in the manifest, the page and the log.

    Args:
        recognition: What was found.
        output: Folder; created.
        fingerprint: Kept in the manifest: of what the result was made, see :mod:`lung_d2.recognition.job`.

    Returns:
        The result folder.

    Raises:
        OutputError: It cannot be written.
    """
    final = Path(output) / recognition.name
    staging = final.with_name(f".{recognition.name}.partial")
    create_folder(Path(output))
    try:
        restore_folder(final)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        _Writer(recognition, staging).write(fingerprint)
        replace_folder(staging, final)
    except OSError as error:
        found = f"cannot be written ({error.strerror or error})"
        raise OutputError(final, found=found, remedy="check the disk space and the permissions") from error
    return final


def draw_slice(recognition: Recognition, detections: SliceDetections) -> npt.NDArray[np.uint8]:
    """Draw the detections of one slice over it; returns uint8 RGB."""
    index, volume = detections.slice_index, recognition.volume
    plane = recognition.planes[index]
    caption = f"slice {index} (0-{len(recognition.planes) - 1})"
    if volume is None:
        return draw_overlay(plane, detections, caption=caption, categories=recognition.categories)
    return draw_overlay(
        plane,
        detections,
        caption=f"{caption}, {volume.slice_positions_mm[index]:.1f} mm",
        pixel_spacing_mm=(volume.spacing_mm[1], volume.spacing_mm[2]),
        sides=sides_of(volume),
        categories=recognition.categories,
    )


def load_writers() -> None:
    """Import what writes DICOM: slow to load, and needed only after the network, beside which there is time."""
    importlib.import_module("lung_d2.findings.dicom_sr")


@dataclass(eq=False)
class _Writer:
    """Writes the outputs of one recognition into one folder."""

    recognition: Recognition
    folder: Path
    clock: StageClock = field(default_factory=StageClock)
    refused: dict[str, str] = field(default_factory=dict)

    def write(self, fingerprint: str) -> None:
        """Write them all, the manifest last; it keeps the fingerprint."""
        with self._draw_overlays():
            with self.clock.stage("detections"):
                self._write_detections()
            if self.recognition.findings is not None:
                self._write_findings(self.recognition.findings)
        seconds = {**self.recognition.seconds, **self.clock.seconds}
        manifest = build_manifest(self.recognition.name, self.recognition.model, seconds)
        manifest |= {
            "slices": len(self.recognition.planes),
            "settings": self.recognition.settings.describe(),
            "refused": self.refused,
            "fingerprint": fingerprint,
        }
        write_json(manifest, self.folder / MANIFEST_NAME, indent=1)

    def _write_findings(self, findings: Findings) -> None:
        self._write_dicom(findings)
        with self.clock.stage("NIfTI"):
            write_lesion_nifti(findings.lesions, findings.volume, self.folder / LABELS_NAME)
        with self.clock.stage("findings and page"):
            write_findings(self._with_refusals(findings), self.recognition.model, self.folder)

    @contextmanager
    def _draw_overlays(self) -> Iterator[None]:
        """Draw the slices with detections in other threads, while the rest is written in this one."""
        (self.folder / "overlays").mkdir()
        least = self.recognition.settings.link.min_detection_score
        shown = [found for one in self.recognition.detections if len(found := one.above(least))]
        with ThreadPoolExecutor(min(count_cores(), _DRAWERS)) as pool:
            drawn = [pool.submit(self._draw_overlay, found) for found in shown]
            try:
                yield
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            with self.clock.stage("overlays"):  # what is left of them
                for one in drawn:
                    one.result()

    def _draw_overlay(self, found: SliceDetections) -> None:
        picture = draw_slice(self.recognition, found)
        path = self.folder / "overlays" / f"slice_{found.slice_index:04d}.png"
        if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
            raise OSError(f"no picture of slice {found.slice_index}")

    def _write_detections(self) -> None:
        detections = self.recognition.detections
        write_json(build_results(detections), self.folder / "detections.json")
        records = [self._image_record(number) for number in range(len(self.recognition.planes))]
        index = build_image_index(records, self.recognition.categories)
        write_json(index, self.folder / "slices.json")

    def _image_record(self, index: int) -> dict[str, Any]:
        height, width = self.recognition.planes[index].shape
        record: dict[str, Any] = {"id": index, "height": int(height), "width": int(width), "file_name": ""}
        if (volume := self.recognition.volume) is not None:
            record["slice_position_mm"] = float(volume.slice_positions_mm[index])
            record["pixel_spacing_mm"] = list(volume.spacing_mm[1:])
            uid = volume.sop_instance_uids[index]
            record["sop_instance_uid"] = uid if show_uid(uid) == uid else ""  # else it may be anything
        return record

    def _write_dicom(self, findings: Findings) -> None:
        from lung_d2.findings.dicom_seg import write_segmentations
        from lung_d2.findings.dicom_sr import write_structured_report

        settings, model = self.recognition.settings, self.recognition.model
        parameters = {"config": f"sha256:{model.config_sha256}", "weights": f"sha256:{model.weights_sha256}"}
        with self.clock.stage("DICOM SEG"):
            segmentations = self._try(
                "segmentation",
                lambda: write_segmentations(
                    findings.lesions,
                    findings.volume,
                    self.folder,
                    per_lesion=settings.segment_per_lesion,
                    write_empty=settings.write_empty_segmentation,
                    parameters=parameters,
                    categories=self.recognition.categories,
                ),
            )
        with self.clock.stage("DICOM SR"):
            self._try(
                "structured_report",
                lambda: write_structured_report(
                    findings.lesions,
                    findings.measurements,
                    findings.volume,
                    self.folder,
                    segmentations or (),
                    parameters=parameters,
                    categories=self.recognition.categories,
                ),
            )

    def _try(self, output: str, write: Callable[[], T]) -> T | None:
        """Write an output, or keep the reason for which the source does not allow it."""
        try:
            return write()
        except OutputError as error:
            if isinstance(error.__cause__, OSError):
                raise  # the disk, not the source
            files = self.recognition.volume.source_files if self.recognition.volume else ()
            reason = "; ".join(filter(None, (error.found, error.expected and f"expected {error.expected}")))
            self.refused[output] = hide_paths(f"{reason}; {error.remedy}", files)
            logger.warning("no %s: %s", output.replace("_", " "), error)
            return None

    def _with_refusals(self, findings: Findings) -> Findings:
        warnings = [
            Warning(f"no_{output}", f"No DICOM {output.replace('_', ' ')} was written: {reason}.")
            for output, reason in self.refused.items()
        ]
        return replace(findings, warnings=(*findings.warnings, *warnings))
