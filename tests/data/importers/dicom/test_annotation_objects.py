from __future__ import annotations

import logging
import shutil
import warnings

import numpy as np
import pytest

from ct.dicom_files import PLANTED, make_slice, write, write_series
from data.importers.dicom_seg_files import CT_CLASS, item, make_frame, make_seg
from data.importers.rt_files import make_contour, make_structure_set
from lung_d2.data.importers.dicom.annotation_objects import find_annotated_series
from lung_d2.data.importers.dicom.dicom_seg import find_cases
from lung_d2.data.importers.dicom.rtstruct import STRUCTURE_SET
from lung_d2.data.importers.dicom.seg_file import SEGMENTATION
from lung_d2.data.importers.registry import PatientRule, Request
from lung_d2.errors import DatasetError, InputError, LungD2Error


def seg(series="1.2.1", *, image="", **tags):
    """Make a SEG of one pixel on the first slice; it names a series, an image, or its tags say what."""
    masks = np.zeros((1, 6, 5), bool)
    masks[0, 1, 2] = True
    return make_seg(masks, [make_frame(image=image)], series=series, **tags)


def series(folder, uid="1.2.1", count=2, **tags):
    """Write a series; its frame of reference is that of :func:`seg` unless a tag says otherwise."""
    frame = {"FrameOfReferenceUID": "1.2.3.4"}
    return write_series(folder, count=count, SeriesInstanceUID=uid, **(frame | tags))


def annotated(root, kind=SEGMENTATION, **options):
    """Return the names of the annotation files of each series by its UID."""
    found = find_annotated_series(root, kind, **options)
    return {one.series.series_instance_uid: sorted(path.name for path in one.annotations) for one in found}


def refused(root, kind=DatasetError, modality=SEGMENTATION, **options):
    with pytest.raises(kind) as caught:
        find_annotated_series(root, modality, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not any(word in message for word in PLANTED)
    return message


def test_objects_go_to_the_series_they_name_wherever_they_lie(tmp_path):
    series(tmp_path / "p1" / "scans" / "deep")
    series(tmp_path / "p1" / "other", "1.2.2")
    series(tmp_path / "p2", "1.2.3")
    write(seg("1.2.1"), tmp_path / "p1" / "scans" / "deep" / "beside")
    write(seg("1.2.2"), tmp_path / "segmentations" / "apart.x")
    write(seg("1.2.3"), tmp_path / "segmentations" / "third.seg")
    write(seg("1.2.3", SegmentationType="BINARY"), tmp_path / "fourth")
    assert annotated(tmp_path) == {"1.2.1": ["beside"], "1.2.2": ["apart.x"], "1.2.3": ["fourth", "third.seg"]}


def test_series_may_be_spread_over_folders_and_share_one(tmp_path):
    for k, path in enumerate(series(tmp_path / "a", count=4)):
        if k % 2:
            (tmp_path / "b").mkdir(exist_ok=True)
            shutil.move(path, tmp_path / "b" / path.name)
    series(tmp_path / "b", "1.2.2", names=["x", "y"])
    write(seg("1.2.1"), tmp_path / "b" / "one")
    write(seg("1.2.2"), tmp_path / "b" / "two")
    found = find_annotated_series(tmp_path, SEGMENTATION)
    assert [len(one.series.files) for one in found] == [4, 2]
    assert [one.series.folder for one in found] == [tmp_path, tmp_path / "b"]
    assert annotated(tmp_path) == {"1.2.1": ["one"], "1.2.2": ["two"]}


def test_only_paths_and_short_texts_are_kept(tmp_path):
    series(tmp_path / "ct")
    write(seg(), tmp_path / "seg")
    (one,) = find_annotated_series(tmp_path, SEGMENTATION)
    assert len(one.series.patient_hash) == len(one.series.series_hash) == 16
    assert not any(word in repr(vars(one)) for word in PLANTED)


def test_object_that_names_no_series_goes_by_its_images(tmp_path):
    series(tmp_path / "a", "1.2.1", SOPInstanceUID="1.2.7.1", count=1)
    series(tmp_path / "b", "1.2.2", SOPInstanceUID="1.2.7.2", count=1)
    write(seg("", image="1.2.7.2"), tmp_path / "one")
    assert annotated(tmp_path, allow_unannotated=True) == {"1.2.1": [], "1.2.2": ["one"]}
    write(seg("", image="1.2.7.3"), tmp_path / "one")
    assert "one: an annotation of image 1.2.7.3, not here" in refused(tmp_path)


def test_object_that_names_nothing_goes_by_its_frame_of_reference(tmp_path):
    series(tmp_path / "a", "1.2.1")
    series(tmp_path / "b", "1.2.2", FrameOfReferenceUID="1.2.99")
    write(seg(""), tmp_path / "one")
    assert annotated(tmp_path, allow_unannotated=True) == {"1.2.1": ["one"], "1.2.2": []}
    series(tmp_path / "c", "1.2.3")
    assert "one: references that fit 2 CT series: 1.2.1, 1.2.3; expected one" in refused(tmp_path)
    write(seg("", FrameOfReferenceUID="1.2.5"), tmp_path / "one")
    assert "an annotation of frame of reference 1.2.5, not here" in refused(tmp_path)
    write(seg("", FrameOfReferenceUID=None), tmp_path / "one")
    assert "one: it names no series, image or frame of reference" in refused(tmp_path)


def test_other_frame_of_reference_than_that_of_the_named_series_is_said(tmp_path, caplog):
    series(tmp_path / "a")
    write(seg(FrameOfReferenceUID="1.2.5"), tmp_path / "one")
    assert annotated(tmp_path) == {"1.2.1": ["one"]}
    assert "one: another FrameOfReferenceUID" in caplog.text


def test_object_that_names_several_series_goes_to_that_of_its_images(tmp_path):
    series(tmp_path / "a", "1.2.1", SOPInstanceUID="1.2.7.1", count=1)
    series(tmp_path / "b", "1.2.2", SOPInstanceUID="1.2.7.2", count=1)
    named = {"ReferencedSeriesSequence": [item(SeriesInstanceUID=f"1.2.{k}") for k in (1, 2, 3)]}
    write(seg(image="1.2.7.2", **named), tmp_path / "one")
    assert annotated(tmp_path, allow_unannotated=True) == {"1.2.1": [], "1.2.2": ["one"]}
    shutil.rmtree(tmp_path / "a")
    write(seg(**named), tmp_path / "one")
    assert annotated(tmp_path) == {"1.2.2": ["one"]}


def test_structure_set_names_its_series_by_study_or_its_images(tmp_path):
    series(tmp_path / "a", "1.2.1", SOPInstanceUID="1.2.7.1", count=1)
    series(tmp_path / "b", "1.2.2", count=1)
    contour = make_contour([[0, 0, 0], [1, 0, 0], [1, 1, 0]], "1.2.7.1")
    for named in ("1.2.1", ""):
        write(make_structure_set({(1, "GGO"): [contour]}, series=named), tmp_path / "rt")
        assert annotated(tmp_path, STRUCTURE_SET, allow_unannotated=True) == {"1.2.1": ["rt"], "1.2.2": []}


def test_series_that_is_not_there_is_refused_by_its_uid(tmp_path):
    series(tmp_path / "a")
    write(seg("1.2.77"), tmp_path / "one")
    message = refused(tmp_path)
    assert "one: an annotation of series 1.2.77, not here; expected its CT series in the same folder tree" in message


def test_series_without_annotation_is_refused_or_free_of_lesions(tmp_path):
    series(tmp_path / "a")
    series(tmp_path / "b", "1.2.2")
    write(seg(), tmp_path / "one")
    write(make_structure_set({(1, "x"): []}, series="1.2.2"), tmp_path / "rt")
    message = refused(tmp_path)
    assert f"series 1.2.2 in {tmp_path / 'b'}: no SEG over it, as 1 of 2 CT series" in message
    assert "beside CT and SEG there is 1 RTSTRUCT" in message
    assert "--allow-unannotated" in message
    cases = find_cases(Request(tmp_path, allow_unannotated=True))
    assert [sum(len(item.instances) for item in case.load()) for case in cases] == [1, 0]


def test_exact_copies_of_an_object_count_once(tmp_path, caplog):
    series(tmp_path / "ct")
    shutil.copy(write(seg(), tmp_path / "one"), tmp_path / "two")
    assert annotated(tmp_path) == {"1.2.1": ["one"]}
    assert f"two: left out, a copy of {tmp_path / 'one'}" in caplog.text


def test_localizers_and_other_objects_are_no_series(tmp_path):
    series(tmp_path / "ct")
    series(tmp_path / "scout", "1.2.2", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(tmp_path / "mr", "1.2.3", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR")
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    write(seg(), tmp_path / "one")
    assert annotated(tmp_path) == {"1.2.1": ["one"]}


def test_patients_go_by_header_folder_or_expression(tmp_path):
    for number, patient in enumerate(["p", "p", "q"]):
        series(tmp_path / f"{number // 2}" / f"scan{number}", f"1.2.{number}", PatientID=patient)
        write(seg(f"1.2.{number}"), tmp_path / f"seg{number}")
    for rule, groups in (
        (PatientRule(), [0, 0, 2]),
        (PatientRule(by_folder=True), [0, 0, 2]),
        (PatientRule(pattern=r"scan(\d)"), [0, 1, 2]),
    ):
        patients = [case.patient for case in find_cases(Request(tmp_path, patients=rule))]
        assert [patients.index(one) for one in patients] == groups


def test_case_knows_that_its_annotation_changed(tmp_path):
    series(tmp_path / "ct")
    write(seg(), tmp_path / "one")
    before = find_cases(Request(tmp_path))[0].fingerprint
    assert find_cases(Request(tmp_path))[0].fingerprint == before
    write(seg(), tmp_path / "two")
    assert find_cases(Request(tmp_path))[0].fingerprint != before


@pytest.mark.parametrize("allow", [False, True])
def test_tree_without_ct_is_refused(allow, tmp_path):
    write(seg(), tmp_path / "one")
    assert "no CT series; expected CT series and SEG" in refused(tmp_path, allow_unannotated=allow)


def test_missing_folder_is_refused(tmp_path):
    assert "none: no such folder" in refused(tmp_path / "none")


@pytest.mark.parametrize(
    ("sop_class", "words"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.5", "SEG of class Surface Segmentation Storage"),
        ("1.2.3.PLANTED", "SEG of class unknown"),
        (None, "SEG of class unknown"),
        (CT_CLASS, "SEG of class CT Image Storage"),
    ],
)
def test_object_of_another_class_is_refused_by_name(sop_class, words, tmp_path):
    series(tmp_path / "ct")
    dataset = seg(SOPClassUID=sop_class)
    write(dataset, tmp_path / "one")
    dataset.file_meta.MediaStorageSOPClassUID = sop_class or ""
    dataset.save_as(tmp_path / "one")
    message = refused(tmp_path, InputError)
    assert f"one: {words}; expected Segmentation Storage or Label Map Segmentation Storage" in message


def test_tag_of_an_unknown_kind_is_refused(tmp_path):
    series(tmp_path / "ct")
    path = write(seg(), tmp_path / "one")
    path.write_bytes(path.read_bytes().replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x18\x00ZZ"))
    assert "one: damaged DICOM" in refused(tmp_path, InputError)


def outcome(root):
    try:
        return str(annotated(root))
    except LungD2Error as error:
        return str(error)


def test_file_that_ends_anywhere_is_read_or_refused_by_name(tmp_path):
    series(tmp_path / "ct")
    path = write(seg(), tmp_path / "one")
    data = path.read_bytes()
    said = set()
    for end in range(400, len(data), 41):
        path.write_bytes(data[:end])
        said.add(outcome(tmp_path))
    assert all("one" in line for line in said)
    assert len(said) >= 3


def test_log_names_no_patient(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    image = make_slice(np.zeros((6, 5), np.uint16), SeriesInstanceUID="1.2.1", z=4.0, PatientAge="PLANTED")
    series(tmp_path / "ct")
    write(image, tmp_path / "x")
    write(seg(FrameOfReferenceUID="PLANTED", ContentDate="PLANTED"), tmp_path / "one")
    caplog.clear()
    with warnings.catch_warnings(record=True) as warned:
        list(find_cases(Request(tmp_path))[0].load())
    said = caplog.text + "".join(str(one.message) for one in warned)
    assert "another FrameOfReferenceUID" in said
    assert not any(word in said for word in PLANTED)
