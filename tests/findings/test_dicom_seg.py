"""Lesions as DICOM SEG: read back by two readers in every geometry, checked by dicom3tools and dcmtk."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from ct.dicom_files import BIRTH_DATE, NAME, PATIENT_ID, make_enhanced, stored_slices, write
from findings.dicom_samples import (
    FRAME_OF_REFERENCE,
    base_affine,
    centres,
    dice,
    make_lesion,
    make_lesions,
    make_masks,
    read_by_hand,
    read_by_highdicom,
    rotations,
    run_tool,
    write_ct,
)
from lung_d2 import __version__
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.ct import CTVolume, read_volume
from lung_d2.errors import OutputError
from lung_d2.findings.dicom_seg import write_segmentations


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> CTVolume:
    return read_volume(write_ct(tmp_path_factory.mktemp("ct")))


@pytest.fixture(scope="module")
def written(volume: CTVolume, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_segmentations(make_lesions(), volume, tmp_path_factory.mktemp("out"), parameters={"weights": "w"})


@pytest.fixture(scope="module")
def ground_glass(written: list[Path]) -> Dataset:
    return pydicom.dcmread(written[0])


@pytest.mark.parametrize("geometry", ["axial", "oblique", "tilted"])
def test_masks_return_in_every_geometry(geometry: str, tmp_path: Path) -> None:
    masks = make_masks()[:2]
    lesions = make_lesions()[:2]
    for number, rotation in enumerate(rotations()):
        affine = rotation @ base_affine(geometry)
        volume = read_volume(write_ct(tmp_path / str(number), affine))
        assert np.allclose(volume.affine_lps, affine, atol=1e-6)
        (path,) = write_segmentations(lesions, volume, tmp_path / f"out{number}")
        for segment, mask in enumerate(masks, start=1):
            points = read_by_hand(path, segment)
            assert dice(points, mask, affine) == 1.0
            assert np.abs(points.mean(axis=0) - centres(mask, affine).mean(axis=0)).max() < 0.01
            assert np.array_equal(read_by_highdicom(path, segment, volume), mask)


def test_highdicom_finds_the_grid_itself(tmp_path: Path) -> None:
    affine = base_affine("oblique")
    path = write_segmentations(make_lesions(), read_volume(write_ct(tmp_path / "ct", affine)), tmp_path)[0]
    found = hd.seg.segread(path).get_volume(segment_numbers=[2])
    points = np.argwhere(found.array[..., 0]) @ found.affine[:3, :3].T + found.affine[:3, 3]
    assert dice(points, make_masks()[1], affine) == 1.0


def test_one_object_a_category_one_segment_a_lesion(written: list[Path], ground_glass: Dataset) -> None:
    names = ["segmentation_ground_glass_opacity.dcm", "segmentation_bronchiectasis.dcm"]
    assert [path.name for path in written] == names
    assert [item.SegmentLabel for item in ground_glass.SegmentSequence] == [
        "Ground glass opacity 1",
        "Ground glass opacity 2",
    ]
    assert len(pydicom.dcmread(written[1]).SegmentSequence) == 1


def test_only_frames_with_voxels_are_written(ground_glass: Dataset) -> None:
    numbers = [
        group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for group in ground_glass.PerFrameFunctionalGroupsSequence
    ]
    assert numbers == [1, 1, 1, 2, 2, 2]  # of 5 slices each lesion is on 3


def test_codes(written: list[Path]) -> None:
    for path, code in zip(written, [("112120", "DCM"), ("12295008", "SCT")], strict=True):
        segment = hd.seg.segread(path).get_segment_description(1)
        assert segment.segmented_property_category == hd.sr.CodedConcept("49755003", "SCT", "x")
        assert (segment.segmented_property_type.value, segment.segmented_property_type.scheme_designator) == code
        assert segment.AnatomicRegionSequence[0].CodeValue == "39607008"


def test_algorithm_is_named(ground_glass: Dataset) -> None:
    item = ground_glass.SegmentSequence[0]
    algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
    assert item.SegmentAlgorithmType == "AUTOMATIC"
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lung_d2", __version__)
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
    assert algorithm.AlgorithmParameters == "weights=w"
    assert ground_glass.ContentQualification == "RESEARCH"


def test_every_segment_is_tracked_by_its_own_uid(written: list[Path]) -> None:
    items = [item for path in written for item in pydicom.dcmread(path).SegmentSequence]
    assert len({item.TrackingUID for item in items}) == 3
    assert len({item.TrackingID for item in items}) == 3
    assert all(item.TrackingUID.is_valid for item in items)


def test_identity_of_the_source_is_carried(ground_glass: Dataset, volume: CTVolume) -> None:
    assert (ground_glass.PatientName, ground_glass.PatientID, ground_glass.PatientBirthDate) == (
        NAME,
        PATIENT_ID,
        BIRTH_DATE,
    )
    assert ground_glass.StudyInstanceUID == volume.study_instance_uid
    assert ground_glass.SeriesInstanceUID != volume.series_instance_uid


def test_frame_of_reference_is_that_of_the_source(ground_glass: Dataset) -> None:
    assert ground_glass.FrameOfReferenceUID == FRAME_OF_REFERENCE


def test_series_and_all_its_images_are_referred_to(ground_glass: Dataset, volume: CTVolume) -> None:
    (series,) = ground_glass.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == volume.series_instance_uid
    uids = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert uids == list(volume.sop_instance_uids)


def test_each_frame_refers_to_the_image_it_lies_on(ground_glass: Dataset, volume: CTVolume) -> None:
    found = []
    for group in ground_glass.PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        assert source.SpatialLocationsPreserved == "YES"
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        index = volume.sop_instance_uids.index(source.ReferencedSOPInstanceUID)
        assert np.allclose((volume.affine_lps @ [0, 0, index, 1])[:3], position, atol=1e-6)
        found.append(index)
    assert found == [3, 2, 1, 4, 3, 2]


def test_overlapping_lesions_of_a_category_go_to_two_objects(volume: CTVolume, tmp_path: Path) -> None:
    first, second, inner = make_masks()
    lesions = [make_lesion(1, first), make_lesion(2, inner), make_lesion(3, second)]
    paths = write_segmentations(lesions, volume, tmp_path)
    assert [path.name for path in paths] == [
        "segmentation_ground_glass_opacity.dcm",
        "segmentation_ground_glass_opacity_2.dcm",
    ]
    assert np.array_equal(read_by_highdicom(paths[0], 1, volume), first)
    assert np.array_equal(read_by_highdicom(paths[0], 2, volume), second)
    assert np.array_equal(read_by_highdicom(paths[1], 1, volume), inner)


def test_one_segment_for_all_lesions_of_a_category(volume: CTVolume, tmp_path: Path) -> None:
    first, second, inner = make_masks()
    lesions = [make_lesion(1, first), make_lesion(2, inner), make_lesion(3, second)]
    (path,) = write_segmentations(lesions, volume, tmp_path, per_lesion=False)
    assert len(pydicom.dcmread(path).SegmentSequence) == 1
    assert np.array_equal(read_by_highdicom(path, 1, volume), first | second | inner)


def test_more_lesions_than_a_byte_holds(volume: CTVolume, tmp_path: Path) -> None:
    lesions = []
    for number in range(260):
        mask = np.zeros(volume.hu.size, bool)
        mask[[number // 2] if number % 2 else [-1 - number // 2]] = True
        lesions.append(make_lesion(number + 1, mask.reshape(volume.hu.shape)))
    paths = write_segmentations(lesions, volume, tmp_path)
    counts = [len(pydicom.dcmread(path, stop_before_pixels=True).SegmentSequence) for path in paths]
    assert sum(counts) == 260
    last = lesions[counts[0] - 1]
    assert np.array_equal(read_by_highdicom(paths[0], counts[0], volume), last.full_mask(volume.hu.shape))


def test_no_lesion_no_file(volume: CTVolume, tmp_path: Path) -> None:
    assert write_segmentations([], volume, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_no_lesion_needs_no_images(tmp_path: Path) -> None:
    volume = read_volume(write_ct(tmp_path / "ct", FrameOfReferenceUID=None))
    assert write_segmentations([], volume, tmp_path / "out") == []


def test_empty_objects_where_asked_for(volume: CTVolume, tmp_path: Path) -> None:
    (lesion, *_) = make_lesions()
    paths = write_segmentations([lesion], volume, tmp_path, write_empty=True)
    assert [path.name for path in paths] == [
        "segmentation_ground_glass_opacity.dcm",
        "segmentation_bronchiectasis.dcm",
    ]
    empty = hd.seg.segread(paths[1])
    assert (empty.NumberOfFrames, empty.pixel_array.any(), empty.SegmentSequence[0].SegmentLabel) == (
        1,
        False,
        "Bronchiectasis",
    )
    assert "Error" not in run_tool("dciodvfy", paths[1])


def test_enhanced_image(tmp_path: Path) -> None:
    """Frames lie in the file in another order than in space."""
    dataset = make_enhanced(
        stored_slices(4), [4.0, 0.0, 6.0, 2.0], [(1.0, -1024.0)] * 4, FrameOfReferenceUID=FRAME_OF_REFERENCE
    )
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.77"
    volume = read_volume(write(dataset, tmp_path / "ct" / "a.dcm"))
    assert volume.frame_numbers == (2, 4, 1, 3)
    masks = [np.zeros((4, 6, 5), bool) for _ in range(2)]
    masks[0][0:2, 1:3, 1:4] = True
    masks[1][2:4, 4:6, 0:2] = True
    (path,) = write_segmentations([make_lesion(1, masks[0]), make_lesion(2, masks[1])], volume, tmp_path)
    for segment, mask in enumerate(masks, start=1):
        assert np.array_equal(read_by_highdicom(path, segment, volume), mask)
        assert dice(read_by_hand(path, segment), mask, volume.affine_lps) == 1.0
    frames = [
        int(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    ]
    assert frames == [4, 2, 3, 1]  # slices 1, 0 of the first lesion, then 3, 2 of the second
    assert "Error" not in run_tool("dciodvfy", path)


def test_enhanced_image_without_lesion(tmp_path: Path) -> None:
    dataset = make_enhanced(stored_slices(2), [2.0, 0.0], [(1.0, -1024.0)] * 2, FrameOfReferenceUID=FRAME_OF_REFERENCE)
    volume = read_volume(write(dataset, tmp_path / "ct" / "a.dcm"))
    paths = write_segmentations([], volume, tmp_path, write_empty=True)
    assert [pydicom.dcmread(path).NumberOfFrames for path in paths] == [1, 1]


def test_images_without_a_frame_of_reference_are_refused(tmp_path: Path) -> None:
    volume = read_volume(write_ct(tmp_path / "ct", FrameOfReferenceUID=None))
    with pytest.raises(OutputError, match="FrameOfReferenceUID"):
        write_segmentations(make_lesions(), volume, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_lesions(tmp_path: Path) -> None:
    shape = (40, 128, 128)
    volume = read_volume(write_ct(tmp_path / "ct", shape=shape))
    lesions = []
    for number in range(30):
        mask = np.zeros(shape, bool)
        mask[number, 4 * number : 4 * number + 4, 10:50] = True
        lesions.append(make_lesion(number + 1, mask))
    write_segmentations(lesions[:1], volume, tmp_path / "once")  # what is loaded once does not count
    tracemalloc.start()
    write_segmentations(lesions, volume, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * np.prod(shape)  # a bool for each lesion would be 30 times the volume


@pytest.mark.parametrize("index", [0, 1])
def test_dciodvfy_finds_no_error(index: int, written: list[Path]) -> None:
    said = run_tool("dciodvfy", written[index])
    assert "Segmentation" in said
    assert "Error" not in said


def test_dcentvfy_finds_the_same_patient_and_study(written: list[Path], volume: CTVolume) -> None:
    assert "Error" not in run_tool("dcentvfy", *volume.source_files, *written)


def test_dcmdump_reads_it(written: list[Path]) -> None:
    said = run_tool("dcmdump", written[0])
    assert "=SegmentationStorage" in said
    assert not [line for line in said.splitlines() if line.startswith(("E:", "W:"))]


def test_real_series_in_jpeg_lossless(data_root: Path, tmp_path: Path) -> None:
    files = sorted((data_root / "ct_series" / "ggo_case").glob("*.dcm"))
    volume = read_volume(sorted(files, key=_position)[60:64])
    masks = [np.zeros(volume.hu.shape, bool) for _ in range(2)]
    masks[0][1:3, 200:240, 300:350] = True
    masks[1][0:2, 100:110, 120:140] = True
    lesions = [make_lesion(1, masks[0], GROUND_GLASS_OPACITY), make_lesion(2, masks[1], BRONCHIECTASIS)]
    for path, mask in zip(write_segmentations(lesions, volume, tmp_path), masks, strict=True):
        assert dice(read_by_hand(path, 1), mask, volume.affine_lps) == 1.0
        assert np.array_equal(read_by_highdicom(path, 1, volume), mask)
        assert "Error" not in run_tool("dciodvfy", path)


def _position(path: Path) -> float:
    return float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])
