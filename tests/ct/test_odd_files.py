"""Every file of the odd files is read rightly, or refused with an error of ours that names it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from conftest import find_data_root
from lung_d2.ct import read_volume
from lung_d2.errors import InputError, SeriesChoiceError

ROOT = find_data_root()
FOLDER = Path(ROOT, "odd_files") if ROOT else Path("absent")
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())

READ = {
    *(f"dcmqi_segmentations/{size}/image/IMG000{k}.dcm" for size in ("23x38x3", "24x38x3") for k in (1, 2, 3)),
    *(f"dcmqi_segmentations/{size}/multiframe/mf.dcm" for size in ("23x38x3", "24x38x3")),
    *(f"dcmqi_segmentations/ct-3slice/0{k}.dcm" for k in (1, 2, 3)),
    "highdicom_test_files/ct_image.dcm",
    *("lungmask_testdata/0.dcm", "lungmask_testdata/1.dcm"),
    *("pydicom-data_ct/693_J2KR.dcm", "pydicom-data_ct/693_UNCR.dcm", "pydicom-data_ct/bad_sequence.dcm"),
    "pydicom-data_ct/explicit_VR-UN.dcm",
    *("rt-utils_mock_data/ct_1.dcm", "rt-utils_mock_data/ct_2.dcm"),
}
TWINS = {"pydicom-data_ct/693_J2KR.dcm": "pydicom-data_ct/693_UNCR.dcm"}
# Nothing but a JPEG decoder can check these: SmallestImagePixelValue and LargestImagePixelValue less 1024, and the
# range of the scanner (12 bits, -1024).
EXTREMES = {
    "pydicom-data_ct/bad_sequence.dcm": (13 - 1024, 2267 - 1024),
    "pydicom-data_ct/explicit_VR-UN.dcm": (-1024, 1186),
}
pytestmark = pytest.mark.skipif(not FILES, reason="no real data beside the project")


def independent_hu(path: Path) -> np.ndarray:
    """Rescale the raw cells frame by frame, straight from the file; padding is air."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        signed, frames = dataset.PixelRepresentation, int(dataset.get("NumberOfFrames") or 1)
        cells = np.frombuffer(dataset.PixelData, "<i2" if signed else "<u2")[: frames * dataset.Rows * dataset.Columns]
        cells = cells.reshape(frames, dataset.Rows, dataset.Columns)
        if frames > 1:
            shared = dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
            groups = dataset.PerFrameFunctionalGroupsSequence
            order = np.argsort([group.PlanePositionSequence[0].ImagePositionPatient[2] for group in groups])
            return (cells * float(shared.RescaleSlope) + float(shared.RescaleIntercept))[order]
        hu = cells * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        if "PixelPaddingValue" in dataset:
            hu[cells == dataset.PixelPaddingValue] = -1000
        return hu


@pytest.mark.parametrize("name", FILES)
def test_file_is_read_or_refused(name: str) -> None:
    path = FOLDER / name
    if name not in READ:
        with pytest.raises(InputError) as caught:
            read_volume(path)
        assert str(path) in str(caught.value)
        assert "remedy" not in str(caught.value)
        return
    volume = read_volume(path)
    assert np.isfinite(volume.affine_lps).all()
    if name in EXTREMES:
        assert (volume.hu.min(), volume.hu.max()) == EXTREMES[name]
    else:
        np.testing.assert_array_equal(volume.hu, independent_hu(FOLDER / TWINS.get(name, name)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dcmqi_segmentations/liver.dcm", "this is a SEG; expected CT; give it as annotation"),
        ("dcmqi_segmentations/sparse-labelmap-noppv.dcm", "this is a SEG"),
        ("rt-utils_mock_data/rt.dcm", "this is an RTSTRUCT; expected CT; give it as annotation"),
        ("pydicom-data_ct/eCT_Supplemental.dcm", "a derived map (PERFUSION, RCBF); expected HU"),
        ("dcmqi_segmentations/23x38x3/nrrd/label.nrrd", "too narrow a range for CT"),
    ],
)
def test_refusal_says_what_it_is(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(FOLDER / name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape", "spacing"),
    [
        ("dcmqi_segmentations/23x38x3/image", (3, 38, 23), (2.5, 0.7, 0.7)),
        ("dcmqi_segmentations/ct-3slice", (3, 512, 512), (1.0, 0.810547, 0.810547)),
        ("highdicom_test_files", (1, 128, 128), (5.0, 0.661468, 0.661468)),
        ("lungmask_testdata", (2, 512, 512), (1.0, 0.625, 0.625)),
        ("rt-utils_mock_data", (2, 512, 512), (5.0, 0.488281, 0.488281)),
    ],
)
def test_folder_is_read(name: str, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    volume = read_volume(FOLDER / name)
    assert volume.hu.shape == shape
    assert volume.spacing_mm == pytest.approx(spacing)


def test_multi_frame_equals_its_single_slices() -> None:
    folder = FOLDER / "dcmqi_segmentations" / "23x38x3"
    single, multi = read_volume(folder / "image"), read_volume(folder / "multiframe")
    np.testing.assert_array_equal(single.hu, multi.hu)
    np.testing.assert_allclose(single.affine_lps, multi.affine_lps)
    assert multi.frame_numbers == (1, 2, 3)


def test_several_series_are_listed() -> None:
    with pytest.raises(SeriesChoiceError, match="12 CT series"):
        read_volume(FOLDER)


def test_nothing_of_third_parties_reaches_the_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in sorted(READ):
            read_volume(FOLDER / name)
    assert capfd.readouterr() == ("", "")
    assert {record.name.split(".")[0] for record in caplog.records} <= {"lung_d2"}
