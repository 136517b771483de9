"""The series that is measured on, as phantom or as copies of a series, and the time of decoding it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate

from lung_d2.ct import CTVolume, read_volume
from lung_d2.phantom import build_patient, preset_by_name
from lung_d2.phantom.dicom import ct_dataset
from studies.benchmark.timing import Timing, alternate

Array = np.ndarray


def write_phantom(folder: Path, slices: int, side: int) -> Path:
    """Write a phantom of some slices of ``side`` x ``side`` pixels as DICOM."""
    spec = preset_by_name("quick")
    spacing_mm = spec.slice_count * (spec.slice_spacing_mm or 1.0) / slices
    spec = replace(spec, matrix=(side, side), slice_count=slices, slice_spacing_mm=spacing_mm)
    return write_copy(build_patient(spec, 0).volume, folder, slices)


def write_copy(volume: CTVolume, folder: Path, slices: int) -> Path:
    """Write a volume, resampled to a number of slices by the nearest, as DICOM without compression."""
    nearest = np.linspace(0, len(volume.hu) - 1, slices).round().astype(int)
    step = (len(volume.hu) - 1) / max(slices - 1, 1)
    affine = volume.affine_lps.copy()
    affine[:3, 2] *= step
    spacing_mm = (volume.spacing_mm[0] * step, *volume.spacing_mm[1:])
    copied = replace(
        volume,
        hu=volume.hu[nearest],
        spacing_mm=spacing_mm,
        affine_lps=affine,
        slice_positions_mm=volume.slice_positions_mm[0] + spacing_mm[0] * np.arange(slices),
        series_instance_uid=uid.generate_uid(prefix=None),
        sop_instance_uids=tuple(uid.generate_uid(prefix=None) for _ in range(slices)),
        frame_numbers=(None,) * slices,
        source_files=(),
        dicom=None,
    )
    folder.mkdir(parents=True, exist_ok=True)
    header = {"PatientName": "BENCHMARK", "PatientID": "BENCHMARK", "FrameOfReferenceUID": uid.generate_uid()}
    for index in range(slices):
        ct_dataset(copied, index, header).save_as(folder / f"{index:04d}.dcm", enforce_file_format=True)
    return folder


def measure_decoding(source: Path, folder: Path, turns: int) -> tuple[dict[str, Timing], dict[str, str]]:
    """Read the same series in each transfer syntax.

    Args:
        source: A series of DICOM files.
        folder: For the copies.
        turns: How often each is read.

    Returns:
        By syntax the time of a series, and the reason for each that could not be written here.
    """
    folders, missing = {"as it is": source}, {}
    write_copy(volume := read_volume(source), folder / "plain", len(volume.hu))
    folders["plain"] = folder / "plain"
    for name, (syntax, encode) in _encoders().items():
        if encode is None:
            missing[name] = "imagecodecs is not installed"
        else:
            folders[name] = _compress(folder / "plain", folder / name.replace(" ", "_"), syntax, encode)
    reads = {name: lambda _, path=path: read_volume(path) for name, path in folders.items()}
    return alternate(reads, turns), missing


def _encoders() -> dict[str, tuple[str, Callable[[Array], bytes] | None]]:
    try:
        import imagecodecs
    except ImportError:
        codecs: Any = None
    else:
        codecs = imagecodecs
    return {
        "RLE": (uid.RLELossless, lambda _: b""),  # pydicom's own
        "JPEG Lossless": (uid.JPEGLosslessSV1, codecs and codecs.ljpeg_encode),
        "JPEG-LS": (uid.JPEGLSLossless, codecs and codecs.jpegls_encode),
        "JPEG 2000": (
            uid.JPEG2000Lossless,
            codecs and (lambda pixels: codecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0)),
        ),
    }


def _compress(source: Path, folder: Path, syntax: str, encode: Callable[[Array], bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        dataset = pydicom.dcmread(path)
        if syntax == uid.RLELossless:
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            pixels = np.frombuffer(dataset.PixelData, np.uint16).reshape(dataset.Rows, dataset.Columns)
            dataset.PixelData = encapsulate([encode(pixels)])
            dataset["PixelData"].is_undefined_length = True
            dataset["PixelData"].VR = "OB"
            dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(folder / path.name, enforce_file_format=True)
    return folder
