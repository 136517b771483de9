from __future__ import annotations

import builtins
import json
import shutil
from collections import Counter

import cv2
import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
from pycocotools.coco import COCO
from pydicom.uid import RLELossless

from ct.dicom_files import PLANTED
from lung_d2 import recognize
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.errors import OutputError
from lung_d2.recognition import RecognitionSettings
from lung_d2.recognition.result import draw_slice
from recognition.chests import BRONCHUS, HAZE, LESIONS, StandIn, write_chest
from tiny import volume_of

SEG = [f"segmentation_{category.name}.dcm" for category in (BRONCHIECTASIS, GROUND_GLASS_OPACITY)]
COMMON = ["detections.json", "findings.json", "lesions.csv", "lesions.nii.gz", "manifest.json", "report.html"]
OVERLAYS = [f"overlays/slice_{index:04d}.png" for index in range(4, 8)]


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    write_chest(folder)
    return folder


@pytest.fixture(scope="module")
def found(source):
    return recognize(source, StandIn())


@pytest.fixture(scope="module")
def folder(found, tmp_path_factory):
    return found.write(tmp_path_factory.mktemp("out"), "f00d")


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_every_output_is_there(folder, found):
    assert folder.name == found.name
    assert files(folder) == sorted([*COMMON, "slices.json", *OVERLAYS, *SEG, "structured_report.dcm"])
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_overlay_on_disk_is_the_picture_drawn(folder, found):
    written = cv2.imread(str(folder / "overlays" / "slice_0005.png"))[..., ::-1]
    assert np.array_equal(written, draw_slice(found, found.detections[5]))


def test_pycocotools_loads_what_was_written(folder):
    loaded = COCO(str(folder / "slices.json")).loadRes(str(folder / "detections.json"))
    assert [(one["image_id"], one["category_id"]) for one in loaded.anns.values()] == [
        (4, 1), (5, 1), (5, 2), (6, 1), (6, 2), (7, 1)
    ]  # fmt: skip
    slices = json.loads((folder / "slices.json").read_text())["images"]
    assert [image["slice_position_mm"] for image in slices[:3]] == [0.0, 6.0, 12.0]
    assert slices[3]["sop_instance_uid"].endswith(".3")
    assert slices[3]["pixel_spacing_mm"] == [3.5, 3.5]


def test_segmentations_and_labels_hold_the_masks(folder):
    labels = np.asarray(nibabel.load(folder / "lesions.nii.gz").dataobj).transpose(2, 1, 0)
    for value, (name, slices, mask) in enumerate([(SEG[1], range(4, 8), HAZE), (SEG[0], range(5, 7), BRONCHUS)], 1):
        expected = np.zeros(labels.shape, bool)
        expected[list(slices)] = mask
        assert np.array_equal(labels == value, expected)
        seg = highdicom.seg.segread(folder / name)
        assert np.array_equal(seg.get_volume(combine_segments=True).array > 0, expected[list(slices)])


def test_report_refers_to_the_segmentations(folder):
    report = pydicom.dcmread(folder / "structured_report.dcm")
    uids = {pydicom.dcmread(folder / name).SOPInstanceUID for name in SEG}
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence}
    assert uids <= named


def test_manifest_says_with_what_and_how_long(folder):
    manifest = manifest_of(folder)
    assert manifest["fingerprint"] == "f00d"
    assert manifest["slices"] == 12
    assert manifest["refused"] == {}
    assert manifest["settings"]["link"]["min_detection_score"] == 0.5
    stages = ["read", "lungs", "network", "link", "measure", "detections"]
    stages += ["DICOM SEG", "DICOM SR", "NIfTI", "findings and page", "overlays", "total"]
    assert list(manifest["seconds"]) == stages
    assert manifest["peak_memory_mib"] > 0


def test_negative_series_gives_every_output_but_empty_segmentations(source, tmp_path):
    folder = recognize(source, StandIn([])).write(tmp_path)
    assert files(folder) == sorted([*COMMON, "slices.json", "structured_report.dcm"])
    assert json.loads((folder / "detections.json").read_text()) == []
    assert "no lesion found" in json.loads((folder / "findings.json").read_text())["summary"]
    assert "no lesion found" in (folder / "report.html").read_text()
    assert not np.asarray(nibabel.load(folder / "lesions.nii.gz").dataobj).any()
    assert pydicom.dcmread(folder / "structured_report.dcm").Modality == "SR"


def test_empty_segmentations_on_request(source, tmp_path):
    settings = RecognitionSettings(write_empty_segmentation=True)
    folder = recognize(source, StandIn([]), settings).write(tmp_path)
    assert set(SEG) <= set(files(folder))


def test_one_segment_for_a_category_on_request(source, tmp_path):
    apart = (range(8, 10), BRONCHUS, 0.9, GROUND_GLASS_OPACITY)
    for per_lesion, segments in ((True, 2), (False, 1)):
        settings = RecognitionSettings(segment_per_lesion=per_lesion)
        folder = recognize(source, StandIn([LESIONS[0], apart]), settings).write(tmp_path)
        assert len(pydicom.dcmread(folder / SEG[1]).SegmentSequence) == segments


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"StudyInstanceUID": None}, "no StudyInstanceUID"),
        ({"SOPInstanceUID": None}, "no SOPInstanceUID"),
        ({"SOPInstanceUID": "1.2.3"}, "SOPInstanceUID 1.2.3, as 12 of the 12 files"),
        ({"SOPInstanceUID": "DOE^JANE"}, "an illegal SOPInstanceUID"),
    ],
    ids=["no study", "no uid", "one uid", "illegal uid"],
)
def test_source_that_dicom_cannot_name_gives_the_other_outputs(tmp_path, caplog, tags, reason):
    write_chest(tmp_path / "DOE^JANE", **tags)
    folder = recognize(tmp_path / "DOE^JANE", StandIn()).write(tmp_path / "out")
    assert files(folder) == sorted([*COMMON, "slices.json", *OVERLAYS])
    refused = manifest_of(folder)["refused"]
    assert set(refused) == {"segmentation", "structured_report"}
    assert all(text.startswith(reason) for text in refused.values())
    assert reason in caplog.text
    warnings = json.loads((folder / "findings.json").read_text())["warnings"]
    assert {"no_segmentation", "no_structured_report"} <= {warning["kind"] for warning in warnings}
    assert f"No DICOM segmentation was written: {reason}" in (folder / "report.html").read_text()
    assert not any(b"DOE^JANE" in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_compressed_source_without_dates_is_referred_to(tmp_path):
    for path in write_chest(tmp_path / "series", StudyDate=None, StudyTime=None):
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    folder = recognize(tmp_path / "series", StandIn()).write(tmp_path / "out")
    assert manifest_of(folder)["refused"] == {}
    seg = pydicom.dcmread(folder / SEG[1])
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced <= {pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "series").iterdir()}
    assert len(referenced) >= 4
    assert seg.StudyDate == ""


def test_source_without_frame_of_reference_still_has_a_report(tmp_path):
    write_chest(tmp_path / "series", FrameOfReferenceUID=None)
    folder = recognize(tmp_path / "series", StandIn()).write(tmp_path / "out")
    assert set(manifest_of(folder)["refused"]) == {"segmentation"}
    assert (folder / "structured_report.dcm").is_file()


def test_volume_that_is_no_dicom_gives_the_other_outputs(tmp_path):
    folder = recognize(volume_of(np.full((3, 20, 20), -800, np.int16)), StandIn([])).write(tmp_path)
    assert files(folder) == sorted([*COMMON, "slices.json"])
    assert manifest_of(folder)["refused"]["structured_report"].startswith("not read from DICOM files")


def test_disk_that_fails_is_no_refusal(found, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OutputError("a.dcm", found="cannot be written", remedy="check the disk") from OSError(28, "no space")

    monkeypatch.setattr("lung_d2.findings.dicom_seg.write_segmentations", fail)
    with pytest.raises(OutputError, match="check the disk"):
        found.write(tmp_path)
    assert not (tmp_path / found.name).exists()


def test_failed_write_leaves_the_earlier_result(found, tmp_path, monkeypatch):
    folder = found.write(tmp_path, "first")
    before = files(folder)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("lung_d2.recognition.result.draw_overlay", fail)
    with pytest.raises(OutputError, match=rf"{found.name}: cannot be written \(disk full\)"):
        found.write(tmp_path, "second")
    assert manifest_of(folder)["fingerprint"] == "first"
    assert files(folder) == before


def test_overlay_that_cannot_be_written_is_an_error(found, tmp_path, monkeypatch):
    monkeypatch.setattr("lung_d2.recognition.result.cv2.imwrite", lambda *_: False)
    with pytest.raises(OutputError, match=r"cannot be written \(no picture of slice 4\)"):
        found.write(tmp_path)
    assert not (tmp_path / found.name).exists()


def test_output_that_is_a_file_is_named(found, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="out: a file; expected a folder"):
        found.write(tmp_path / "out")


def test_write_that_was_killed_leaves_nothing_behind(found, tmp_path):
    whole = files(found.write(tmp_path))
    shutil.move(tmp_path / found.name, tmp_path / f".{found.name}.old")
    (tmp_path / f".{found.name}.partial" / "overlays").mkdir(parents=True)
    (tmp_path / f".{found.name}.partial" / "overlays" / "slice_0000.png").touch()
    assert files(found.write(tmp_path)) == whole
    assert [path.name for path in tmp_path.iterdir()] == [found.name]


def test_second_write_replaces_all_of_the_first(source, found, tmp_path):
    found.write(tmp_path)
    folder = recognize(source, StandIn([])).write(tmp_path)
    assert files(folder) == sorted([*COMMON, "slices.json", "structured_report.dcm"])


def test_patient_is_named_by_the_dicom_objects_alone(folder):
    holding = {
        path.name
        for path in folder.rglob("*")
        if path.is_file() and any(word.encode() in path.read_bytes() for word in PLANTED)
    }
    assert holding == {*SEG, "structured_report.dcm"}


def test_each_source_file_is_opened_twice_with_seg_and_sr(tmp_path, monkeypatch):
    sources = write_chest(tmp_path / "series")
    counts = Counter()
    true_open = builtins.open

    def counting_open(file, *args, **options):
        counts[str(file)] += 1
        return true_open(file, *args, **options)

    monkeypatch.setattr(builtins, "open", counting_open)
    folder = recognize(tmp_path / "series", StandIn()).write(tmp_path / "out")
    assert (folder / "structured_report.dcm").is_file()
    assert {counts[str(path)] for path in sources} == {2}  # once for the header, once for the pixels
