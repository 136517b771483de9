"""Lesions as DICOM SR: its content, its references, and that other tools read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.coding import Code
from scipy import ndimage

from ct.dicom_files import BIRTH_DATE, NAME, PATIENT_ID, make_enhanced, stored_slices, write
from findings.dicom_samples import make_lesion, make_lesions, make_masks, run_tool, write_ct
from lung_d2 import __version__
from lung_d2.ct import CTVolume, read_volume
from lung_d2.errors import OutputError
from lung_d2.findings.dicom_seg import write_segmentations
from lung_d2.findings.dicom_sr import MAX_POINTS, trace_outlines, write_structured_report
from lung_d2.lesions import Measurement, measure_lesions
from lung_d2.masks import fill_polygon

VOLUME, ATTENUATION = Code("118565006", "SCT", "Volume"), Code("112031", "DCM", "Attenuation Coefficient")
SHARE = Code("lung_share", "99LUNGD2", "Share")
ABSENT, PRESENT = "272519000", "52101004"


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> CTVolume:
    return read_volume(write_ct(tmp_path_factory.mktemp("ct")))


@pytest.fixture(scope="module")
def measurements(volume: CTVolume) -> list[Measurement]:
    known = [("left", 1.25), ("both", None), (None, 0.5)]
    found = measure_lesions(make_lesions(), volume)
    return [
        replace(one, values={**one.values, "side": side, "lung_share_percent": share})
        for one, (side, share) in zip(found, known, strict=True)
    ]


@pytest.fixture(scope="module")
def segmentations(volume: CTVolume, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_segmentations(make_lesions(), volume, tmp_path_factory.mktemp("seg"))


@pytest.fixture(scope="module")
def path(
    volume: CTVolume,
    measurements: list[Measurement],
    segmentations: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("sr")
    return write_structured_report(
        make_lesions(), measurements, volume, folder, segmentations, parameters={"weights": "w"}
    )


@pytest.fixture(scope="module")
def report(path: Path) -> hd.sr.Comprehensive3DSR:
    return hd.sr.srread(path)


@pytest.fixture(scope="module")
def negative(volume: CTVolume, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_structured_report([], [], volume, tmp_path_factory.mktemp("negative"))


def test_a_volumetric_and_a_planar_group_for_each_lesion(report: hd.sr.Comprehensive3DSR) -> None:
    names = [
        [group.tracking_identifier.split(" (")[0] for group in groups]
        for groups in (
            report.content.get_volumetric_roi_measurement_groups(),
            report.content.get_planar_roi_measurement_groups(),
        )
    ]
    assert names == [["Ground glass opacity 1", "Ground glass opacity 2", "Bronchiectasis 3"]] * 2


def test_groups_and_segments_share_their_tracking_uids(
    report: hd.sr.Comprehensive3DSR, segmentations: list[Path]
) -> None:
    segments = [item.TrackingUID for one in segmentations for item in pydicom.dcmread(one).SegmentSequence]
    assert [group.tracking_uid for group in report.content.get_volumetric_roi_measurement_groups()] == segments
    assert [group.tracking_uid for group in report.content.get_planar_roi_measurement_groups()] == segments
    assert len(set(segments)) == 3


def test_volumetric_groups_refer_to_their_segments(
    report: hd.sr.Comprehensive3DSR, segmentations: list[Path], volume: CTVolume
) -> None:
    uids = [pydicom.dcmread(one).SOPInstanceUID for one in segmentations]
    expected = [(uids[0], 1), (uids[0], 2), (uids[1], 1)]
    groups = report.content.get_volumetric_roi_measurement_groups()
    for group, (uid, number) in zip(groups, expected, strict=True):
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == uid
        assert segment[0].ReferencedSOPSequence[0].ReferencedSegmentNumber == number
        assert segment.source_series_for_segmentation.value == volume.series_instance_uid


def test_findings_are_coded(report: hd.sr.Comprehensive3DSR) -> None:
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.finding_type.value for group in groups] == ["112120", "112120", "12295008"]
    assert {group.finding_category.value for group in groups} == {"49755003"}


def test_sites_are_lungs_with_their_side_where_known(report: hd.sr.Comprehensive3DSR) -> None:
    sites = [group.finding_sites[0] for group in report.content.get_volumetric_roi_measurement_groups()]
    assert {site.value.value for site in sites} == {"39607008"}
    assert [site.laterality and site.laterality.value for site in sites] == ["7771000", "51440002", None]


def test_volume_is_in_ml(report: hd.sr.Comprehensive3DSR) -> None:
    group = report.content.get_volumetric_roi_measurement_groups()[0]
    (found,) = group.get_measurements(VOLUME)
    assert found.value == pytest.approx(make_masks()[0].sum() * 2.5 * 0.9 * 0.7 / 1000, rel=1e-5)
    assert (found.unit.value, found.unit.scheme_designator) == ("ml", "UCUM")


def test_attenuation_is_in_hu_with_its_derivation(
    report: hd.sr.Comprehensive3DSR, measurements: list[Measurement], volume: CTVolume
) -> None:
    group = report.content.get_volumetric_roi_measurement_groups()[1]
    found = {item.derivation.value: item for item in group.get_measurements(ATTENUATION)}
    hu = volume.hu[make_masks()[1]]
    assert found["373098007"].value == pytest.approx(hu.mean(), rel=1e-5)
    assert found["386136009"].value == pytest.approx(hu.std(), rel=1e-5)
    assert {item.unit.value for item in found.values()} == {"[hnsf'U]"}


def test_lengths_are_in_mm(report: hd.sr.Comprehensive3DSR) -> None:
    """The second lesion goes over 3 slices of 2.5 mm, 7 rows of 0.9 mm, 2 columns of 0.7 mm."""
    group = report.content.get_volumetric_roi_measurement_groups()[1]
    codes = {"103355008": 1.4, "131197000": 6.3, "121207": 7.5}
    found = {item.name.value: item for item in group.get_measurements() if item.name.value in codes}
    assert {code: item.value for code, item in found.items()} == pytest.approx(codes, abs=1e-4)
    assert {item.unit.value for item in found.values()} == {"mm"}


def test_share_of_the_lung_stands_where_known(report: hd.sr.Comprehensive3DSR) -> None:
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [[item.value for item in group.get_measurements(SHARE)] for group in groups] == [[1.25], [], [0.5]]
    (scheme,) = report.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == SHARE.scheme_designator


def test_planar_group_is_the_outline_on_the_key_slice(report: hd.sr.Comprehensive3DSR, volume: CTVolume) -> None:
    groups = report.content.get_planar_roi_measurement_groups()
    for group, lesion in zip(groups, make_lesions(), strict=True):
        region = group.roi
        source = region.ContentSequence[0].ReferencedSOPSequence[0]
        assert region.graphic_type == hd.sr.GraphicTypeValues.POLYLINE
        assert source.ReferencedSOPInstanceUID == volume.sop_instance_uids[lesion.key_slice_index]
        assert np.array_equal(region.value[0], region.value[-1])
        drawn = fill_polygon(region.value[:-1] - 0.5, volume.hu.shape[1:])
        parts, _ = ndimage.label(lesion.slice_mask(lesion.key_slice_index, volume.hu.shape[1:]), np.ones((3, 3)))
        assert np.array_equal(drawn, parts == np.bincount(parts[parts > 0]).argmax())


def test_lesions_without_segments_are_drawn_by_outlines(
    volume: CTVolume, measurements: list[Measurement], tmp_path: Path
) -> None:
    merged = write_segmentations(make_lesions(), volume, tmp_path, per_lesion=False)
    for given in ([], merged):
        written = hd.sr.srread(write_structured_report(make_lesions(), measurements, volume, tmp_path, given))
        groups = written.content.get_volumetric_roi_measurement_groups()
        for group, lesion in zip(groups, make_lesions(), strict=True):
            drawn = np.zeros(volume.hu.shape, bool)
            for region in group.roi:
                uid = region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
                outline = region.value[:-1] - 0.5
                drawn[volume.sop_instance_uids.index(uid)] |= fill_polygon(outline, volume.hu.shape[1:])
            assert np.array_equal(drawn, lesion.full_mask(volume.hu.shape))


def test_frame_of_an_enhanced_image_is_named(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_slices(4), [4.0, 0.0, 6.0, 2.0], [(1.0, -1024.0)] * 4)
    volume = read_volume(write(dataset, tmp_path / "ct" / "a.dcm"))
    mask = np.zeros(volume.hu.shape, bool)
    mask[1, 2:4, 2:4] = True
    lesion = make_lesion(1, mask)
    path = write_structured_report([lesion], measure_lesions([lesion], volume), volume, tmp_path)
    region = hd.sr.srread(path).content.get_planar_roi_measurement_groups()[0].roi
    assert region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber == 4
    assert "Error" not in run_tool("dciodvfy", path)


def test_algorithm_and_observer_are_named(report: hd.sr.Comprehensive3DSR) -> None:
    (context,) = report.content.get_observer_contexts()
    assert context.observer_identifying_attributes.name == "lung_d2"
    assert context.observer_identifying_attributes.uid.startswith("2.25.")
    text = str(report.content.get_volumetric_roi_measurement_groups()[0][0])
    assert all(word in text for word in ("Artificial Intelligence", __version__, "weights=w"))


def test_report_is_complete_but_nobody_verified_it(report: hd.sr.Comprehensive3DSR) -> None:
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE",
        "PRELIMINARY",
        "UNVERIFIED",
    )
    assert report.ContentQualification == "RESEARCH"


def test_identity_and_evidence(report: hd.sr.Comprehensive3DSR, volume: CTVolume, segmentations: list[Path]) -> None:
    assert (report.PatientName, report.PatientID, report.PatientBirthDate) == (NAME, PATIENT_ID, BIRTH_DATE)
    assert report.StudyInstanceUID == volume.study_instance_uid
    evidence = {uid for *_, uid, _ in report.get_evidence()}
    assert evidence == {*volume.sop_instance_uids, *(pydicom.dcmread(one).SOPInstanceUID for one in segmentations)}


def test_categories_are_said_to_be_present_or_absent(volume: CTVolume, tmp_path: Path, negative: Path) -> None:
    lesions = make_lesions()[:2]
    positive = write_structured_report(lesions, measure_lesions(lesions, volume), volume, tmp_path)
    for path, ground_glass in ((positive, PRESENT), (negative, ABSENT)):
        (group,) = hd.sr.srread(path).content.get_image_measurement_groups()
        found = {item.name.value: item.value.value for item in group.get_qualitative_evaluations()}
        assert (found["112120"], found["12295008"]) == (ground_glass, ABSENT)


def test_negative_report_says_so_in_words(negative: Path) -> None:
    assert "No lesion found. Research use only." in run_tool("dsrdump", "+Pl", negative)
    content = hd.sr.srread(negative).content
    assert content.get_volumetric_roi_measurement_groups() == []


def test_images_without_a_frame_of_reference_still_have_a_report(tmp_path: Path) -> None:
    volume = read_volume(write_ct(tmp_path / "ct", FrameOfReferenceUID=None))
    lesions = make_lesions()
    path = write_structured_report(lesions, measure_lesions(lesions, volume), volume, tmp_path)
    assert len(hd.sr.srread(path).content.get_planar_roi_measurement_groups()) == 3


def test_segmentation_of_another_series_is_refused(
    segmentations: list[Path], measurements: list[Measurement], tmp_path: Path
) -> None:
    other = read_volume(write_ct(tmp_path / "ct"))
    with pytest.raises(OutputError, match="of another series"):
        write_structured_report(make_lesions(), measurements, other, tmp_path, segmentations)


def test_what_is_no_segmentation_is_refused(volume: CTVolume, measurements: list[Measurement], tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"x" * 500)
    for path in (tmp_path / "x.dcm", volume.source_files[0], tmp_path / "gone.dcm"):
        with pytest.raises(OutputError, match="not a readable segmentation"):
            write_structured_report(make_lesions(), measurements, volume, tmp_path, [path])


def test_dciodvfy_finds_no_error(path: Path, negative: Path) -> None:
    for one in (path, negative):
        said = run_tool("dciodvfy", one)
        assert "Comprehensive3DSR" in said
        assert "Error" not in said


def test_dcentvfy_finds_the_same_patient_and_study(path: Path, segmentations: list[Path], volume: CTVolume) -> None:
    assert "Error" not in run_tool("dcentvfy", *volume.source_files, *segmentations, path)


def test_dcmtk_reads_it(path: Path, negative: Path) -> None:
    assert run_tool("dsrdump", path).count("Referenced Segment") == 3
    for one in (path, negative):
        said = run_tool("dsrdump", one) + run_tool("dcmdump", one)
        assert not [line for line in said.splitlines() if line.startswith("E:")]


def drawn(outlines: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Fill outlines; the polygons count from the centre of the first pixel, not from its corner."""
    masks = [fill_polygon(outline[:-1] - 0.5, shape) for outline in outlines]
    return np.any(masks, axis=0)


def test_one_pixel_is_a_square_around_its_centre() -> None:
    mask = np.zeros((4, 5), bool)
    mask[2, 3] = True
    (outline,) = trace_outlines(mask)
    assert {tuple(point) for point in outline.tolist()} == {(3.0, 2.0), (4.0, 2.0), (4.0, 3.0), (3.0, 3.0)}
    assert np.array_equal(outline[0], outline[-1])


def test_outline_runs_along_the_edges_of_a_rectangle() -> None:
    mask = np.zeros((6, 7), bool)
    mask[1:4, 2:7] = True
    (outline,) = trace_outlines(mask)
    assert outline.min(axis=0).tolist() == [2.0, 1.0]
    assert outline.max(axis=0).tolist() == [7.0, 4.0]
    assert len(outline) == 5


@pytest.mark.parametrize("seed", range(5))
def test_outlines_give_the_mask_back_without_its_holes(seed: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 50)), 1.0)
    mask = noise > 0.1
    filled = ndimage.binary_fill_holes(mask)
    assert (filled != mask).any()
    assert np.array_equal(drawn(trace_outlines(mask), mask.shape), filled)


def test_pixels_that_touch_at_a_corner_are_one_part() -> None:
    mask = np.eye(4, dtype=bool)
    outlines = trace_outlines(mask)
    assert len(outlines) == 1
    assert np.array_equal(drawn(outlines, mask.shape), mask)


def test_largest_part_comes_first() -> None:
    mask = np.zeros((10, 10), bool)
    mask[0, 0] = mask[9, 9] = True
    mask[3:7, 3:7] = True
    outlines = trace_outlines(mask)
    assert [len(outlines), outlines[0].min(), outlines[0].max()] == [3, 3.0, 7.0]


def test_points_are_left_out_where_there_are_too_many() -> None:
    """A comb of 4,200 teeth has more corners than the field holds."""
    mask = np.zeros((5, 8400), bool)
    mask[2:] = True
    mask[1, ::2] = True
    (outline,) = trace_outlines(mask)
    assert len(outline) <= MAX_POINTS
    assert np.mean(drawn([outline], mask.shape)[2:]) > 0.999
