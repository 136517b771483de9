"""Odd sources: written with right references, or refused with the reason and without a word on the patient."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, SecondaryCaptureImageStorage, generate_uid

from ct.dicom_files import BIRTH_DATE, PLANTED, make_enhanced, make_slice, stored_slices, write
from findings.dicom_samples import (
    FRAME_OF_REFERENCE,
    base_affine,
    dice,
    make_lesions,
    make_masks,
    read_by_hand,
    run_tool,
    write_ct,
)
from lung_d2.ct import CTVolume, read_volume, write_nifti
from lung_d2.ct.headers import quiet_pydicom
from lung_d2.errors import OutputError
from lung_d2.findings.dicom_seg import write_segmentations
from lung_d2.findings.dicom_sr import write_structured_report
from lung_d2.findings.source_images import build_source_images, clean_identity
from lung_d2.lesions import measure_lesions

Change = Callable[[int, Dataset], None]
PRIVATE = (*PLANTED, BIRTH_DATE, "DOE", "JANE")
pytestmark = pytest.mark.filterwarnings("ignore")


def change_files(folder: Path, change: Change) -> Path:
    """Change each file of a series; the number is that of the slice."""
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        change(int(path.stem), dataset)
        dataset.save_as(path)
    return folder


def setting(**tags: object) -> Change:
    def change(_: int, dataset: Dataset) -> None:
        for name, value in tags.items():
            if value is None:
                if name in dataset:
                    delattr(dataset, name)
            else:
                setattr(dataset, name, value)

    return change


def write_all(volume: CTVolume, folder: Path) -> list[Path]:
    """Write SEG and SR, and check both."""
    lesions = make_lesions()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning of pydicom quotes the value that it is about
        paths = write_segmentations(lesions, volume, folder)
        report = write_structured_report(lesions, measure_lesions(lesions, volume), volume, folder, paths)
    for number, path in enumerate(paths):
        assert dice(read_by_hand(path, 1), make_masks()[2 * number], volume.affine_lps) == 1.0
    for path in (*paths, report):
        assert pydicom.dcmread(path).StudyInstanceUID == volume.study_instance_uid
    segments = hd.sr.srread(report).content.get_volumetric_roi_measurement_groups()
    assert len(segments) == 3
    return [*paths, report]


def refused(volume: CTVolume, folder: Path) -> str:
    """Return why neither is written, having checked that nobody is named and nothing is left behind."""
    messages = []
    for write_one in (
        lambda: write_segmentations(make_lesions(), volume, folder),
        lambda: write_structured_report([], [], volume, folder),
    ):
        with pytest.raises(OutputError) as caught:
            write_one()
        assert caught.value.__cause__ is None
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert not any(word in messages[0] for word in PRIVATE)
    assert not folder.exists()
    return messages[0]


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientID": None, "PatientName": None, "PatientBirthDate": None, "Modality": None},
        {"PatientSex": "MALE", "PatientBirthDate": "unknown", "PatientAge": "old"},
        {"StudyDate": "2020-01-01", "StudyTime": "noon", "AccessionNumber": "X" * 40, "StudyID": "Y" * 40},
        {"PatientID": "DOE " * 30, "PatientName": "DOE^JANE^^^^^^^ " * 9},
        {"PatientID": ["DOE", "JANE"], "PatientName": ["DOE^A", "JANE^B"]},
        {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "DÖE^JÄNE"},
        {"SpecificCharacterSet": "GB18030", "PatientName": "Wang^XiaoDong=王^小东"},
        {"SpecificCharacterSet": "NO SUCH SET"},
        {"LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5"},
        {"PatientIdentityRemoved": "YES"},
        {"SOPClassUID": SecondaryCaptureImageStorage},
        {"SliceThickness": None},
    ],
    ids=lambda tags: ",".join(tags),
)
@pytest.mark.filterwarnings("ignore")
def test_odd_values_are_carried_or_left_out(
    tags: dict[str, object], tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    volume = read_volume(change_files(write_ct(tmp_path / "ct"), setting(**tags)))
    capfd.readouterr()
    with caplog.at_level(logging.DEBUG):
        paths = write_all(volume, tmp_path / "out")
    said = caplog.text + "".join(capfd.readouterr())
    assert not any(word in said for word in PRIVATE)
    assert not any(word in str(path.name) for path in paths for word in PRIVATE)


@pytest.mark.filterwarnings("ignore")
def test_odd_values_without_remainder_are_legal(tmp_path: Path) -> None:
    tags = {"PatientSex": "MALE", "PatientBirthDate": "1901.02.03", "StudyTime": "noon", "PatientAge": "old"}
    volume = read_volume(change_files(write_ct(tmp_path / "ct"), setting(**tags)))
    for path in write_all(volume, tmp_path / "out"):
        assert "Error" not in run_tool("dciodvfy", path)
        dataset = pydicom.dcmread(path)
        assert (dataset.PatientSex, dataset.PatientBirthDate, dataset.StudyTime) == ("", "19010203", "")


def test_compressed_pixels_are_not_touched(tmp_path: Path) -> None:
    """The pixels are damaged after they were read: headers are enough."""
    folder = write_ct(tmp_path / "ct")
    volume = read_volume(folder)

    def damage(_: int, dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.PixelData = pydicom.encaps.encapsulate([b"no picture"])
        dataset["PixelData"].is_undefined_length = True

    change_files(folder, damage)
    write_all(volume, tmp_path / "out")


def test_orientations_that_differ_by_rounding(tmp_path: Path) -> None:
    def turn(index: int, dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = [1, 0.0001 * index, 0, -0.0001 * index, 1, 0]

    volume = read_volume(change_files(write_ct(tmp_path / "ct"), turn))
    lesions = make_lesions()
    path = write_segmentations(lesions, volume, tmp_path)[0]
    assert dice(read_by_hand(path, 2), make_masks()[1], volume.affine_lps) == 1.0


def test_positions_that_are_not_quite_even_stay_as_they_are(tmp_path: Path) -> None:
    def shift(index: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient[2] += 0.05 * (index % 2)

    volume = read_volume(change_files(write_ct(tmp_path / "ct"), shift))
    path = write_segmentations(make_lesions()[:1], volume, tmp_path)[0]
    found = np.unique(read_by_hand(path, 1)[:, 2])
    assert found == pytest.approx(89.1 + np.array([1, 2, 3]) * 2.5 + [0.05, 0.0, 0.05])


@pytest.mark.filterwarnings("ignore")
def test_uid_with_leading_zeros_is_referred_to_as_it_is(tmp_path: Path) -> None:
    def rename(index: int, dataset: Dataset) -> None:
        dataset.SOPInstanceUID = f"1.2.0{index}.007"

    volume = read_volume(change_files(write_ct(tmp_path / "ct"), rename))
    path, *_ = write_all(volume, tmp_path / "out")
    (series,) = pydicom.dcmread(path).ReferencedSeriesSequence
    uids = [str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]
    assert uids == [f"1.2.0{index}.007" for index in range(5)]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"SOPInstanceUID": ""}, "no SOPInstanceUID"),
        ({"SOPInstanceUID": "1.2.3"}, "SOPInstanceUID 1.2.3, as 5 of the 5 files"),
        ({"SOPInstanceUID": "JANE"}, "illegal SOPInstanceUID"),
        ({"SOPInstanceUID": "1." * 40 + "1"}, "illegal SOPInstanceUID"),
        ({"StudyInstanceUID": None}, "no StudyInstanceUID"),
        ({"SeriesInstanceUID": None}, "no SeriesInstanceUID"),
        ({"SeriesInstanceUID": "DOE.JANE"}, "illegal SeriesInstanceUID"),
        ({"SOPClassUID": None}, "SOP class (no UID)"),
        ({"SOPClassUID": "1.2.826.0.1.77"}, "SOP class 1.2.826.0.1.77"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_images_that_cannot_be_referred_to_are_refused(tags: dict[str, object], words: str, tmp_path: Path) -> None:
    folder = write_ct(tmp_path / "ct")
    change = setting(**tags)

    def apply(index: int, dataset: Dataset) -> None:
        change(index, dataset)
        if tags.get("SOPClassUID", "") is None:
            del dataset.file_meta.MediaStorageSOPClassUID

    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        apply(int(path.stem), dataset)
        dataset.save_as(path, enforce_file_format=False)
    assert words in refused(read_volume(folder), tmp_path / "out")


def test_one_doubled_uid_names_its_file(tmp_path: Path) -> None:
    folder = write_ct(tmp_path / "ct")
    uid = pydicom.dcmread(folder / "0.dcm").SOPInstanceUID
    dataset = pydicom.dcmread(folder / "3.dcm")
    dataset.SOPInstanceUID = uid
    dataset.save_as(folder / "3.dcm")
    message = refused(read_volume(folder), tmp_path / "out")
    assert str(folder) in message
    assert "2 of the 5 files" in message


def test_frames_of_reference_that_differ_leave_the_report(tmp_path: Path) -> None:
    def scatter(_: int, dataset: Dataset) -> None:
        dataset.FrameOfReferenceUID = generate_uid()

    volume = read_volume(change_files(write_ct(tmp_path / "ct"), scatter))
    with pytest.raises(OutputError, match="FrameOfReferenceUID"):
        write_segmentations(make_lesions(), volume, tmp_path / "out")
    assert write_structured_report([], [], volume, tmp_path / "out").is_file()


def test_volume_files_are_refused(tmp_path: Path) -> None:
    values = np.full((4, 6, 5), -1000, np.int16)
    write_nifti(values, base_affine("axial"), tmp_path / "a.nii.gz")
    assert "not read from DICOM files" in refused(read_volume(tmp_path / "a.nii.gz"), tmp_path / "out")


def test_files_are_not_opened_again(tmp_path: Path) -> None:
    folder = write_ct(tmp_path / "ct")
    volume = read_volume(folder)
    for path in folder.iterdir():
        path.unlink()
    write_all(volume, tmp_path / "out")


def test_several_enhanced_images_are_refused(tmp_path: Path) -> None:
    for number in range(2):
        positions = [4.0 * number, 4.0 * number + 2.0]
        dataset = make_enhanced(stored_slices(2), positions, [(1.0, -1024.0)] * 2)
        write(dataset, tmp_path / "ct" / f"{number}.dcm")
    volume = read_volume(tmp_path / "ct")
    assert len(volume.hu) == 4
    assert "one of several files with frames" in refused(volume, tmp_path / "out")


def test_enhanced_and_classic_images_together_are_refused(tmp_path: Path) -> None:
    folder = write_ct(tmp_path / "ct", np.diag([0.75, 0.5, 2.0, 1.0]), (4, 6, 5), SeriesInstanceUID="1.2.3")
    dataset = make_enhanced(stored_slices(2), [8.0, 10.0], [(1.0, -1024.0)] * 2, SeriesInstanceUID="1.2.3")
    write(dataset, folder / "4.dcm")
    assert "one of several files with frames" in refused(read_volume(folder), tmp_path / "out")


def test_planes_of_an_enhanced_image_are_its_frames(tmp_path: Path) -> None:
    dataset = make_enhanced(
        stored_slices(3), [4.0, 0.0, 2.0], [(1.0, -1024.0)] * 3, FrameOfReferenceUID=FRAME_OF_REFERENCE
    )
    images = build_source_images(read_volume(write(dataset, tmp_path / "a.dcm")))
    assert images.plane_count == 3
    assert [images.plane_index(index) for index in range(3)] == [1, 2, 0]
    assert images.image_of(2) is images.datasets[0]


def test_planes_of_classic_images_are_the_slices(tmp_path: Path) -> None:
    volume = read_volume(write_ct(tmp_path))
    images = build_source_images(volume)
    assert images.plane_count == 5
    assert [images.plane_index(index) for index in range(5)] == list(range(5))
    assert images.image_of(3).SOPInstanceUID == volume.sop_instance_uids[3]
    assert images.frame_of_reference_uid == FRAME_OF_REFERENCE


def test_nothing_shows_the_patient_in_its_repr(tmp_path: Path) -> None:
    assert not any(word in repr(build_source_images(read_volume(write_ct(tmp_path)))) for word in PRIVATE)


def identity(folder: Path, **tags: object) -> Dataset:
    path = write(make_slice(stored_slices(1)[0], **tags), folder / "a.dcm")
    with quiet_pydicom():
        return clean_identity(pydicom.dcmread(path))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PatientName", "DOE^JANE^^^", "DOE^JANE^^^"),
        ("PatientName", "DOE^JANE\\ROE^JOE", "DOE^JANE ROE^JOE"),
        ("PatientID", "A" * 100, "A" * 100),
        ("PatientID", "12\n34\0", "1234"),
        ("PatientBirthDate", "19010203", "19010203"),
        ("PatientBirthDate", "1901.02.03", "19010203"),
        ("PatientBirthDate", "19010230", ""),
        ("PatientBirthDate", "190102", ""),
        ("PatientSex", "F", "F"),
        ("PatientSex", "female", ""),
        ("StudyDate", None, ""),
        ("StudyTime", "235959.123456", "235959.123456"),
        ("StudyTime", "23:59:59", "235959"),
        ("StudyTime", "2359", "2359"),
        ("StudyTime", "9 o'clock", ""),
        ("AccessionNumber", "X" * 20, "X" * 20),
        ("StudyDescription", "CT  Thorax", "CT  Thorax"),
    ],
)
def test_value(name: str, value: str | None, expected: str, tmp_path: Path) -> None:
    assert str(identity(tmp_path, **{name: value})[name].value) == expected


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "DÖE^JÄNE"),
        ("ISO_IR 192", "Дое^Джейн"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
    ],
)
def test_name_is_decoded(charset: str | list[str], name: str, tmp_path: Path) -> None:
    assert str(identity(tmp_path, SpecificCharacterSet=charset, PatientName=name).PatientName) == name


@pytest.mark.parametrize(
    ("name", "value"), [("PatientAge", "old"), ("LossyImageCompression", "yes"), ("PatientIdentityRemoved", "maybe")]
)
def test_optional_code_that_is_none_is_left_out(name: str, value: str, tmp_path: Path) -> None:
    assert name not in identity(tmp_path, **{name: value})


def test_attributes_of_type_2_are_there_if_empty(tmp_path: Path) -> None:
    found = identity(tmp_path, PatientName=None, PatientID=None, PatientBirthDate=None)
    names = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "ReferringPhysicianName")
    assert all(str(found[name].value or "") == "" for name in names)


def test_removed_identity_is_told_with_its_method(tmp_path: Path) -> None:
    found = identity(tmp_path, PatientIdentityRemoved="YES", DeidentificationMethod="by hand")
    assert (found.PatientIdentityRemoved, found.DeidentificationMethod) == ("YES", "by hand")
    assert "PatientIdentityRemoved" not in identity(tmp_path, PatientIdentityRemoved="YES")


def test_what_is_no_identity_is_not_read(tmp_path: Path) -> None:
    assert not {"SeriesDescription", "SOPInstanceUID", "PixelData"} & set(identity(tmp_path).dir())
