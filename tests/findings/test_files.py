"""The outputs that are not DICOM: all from one document, the table, the label volume, COCO results."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pycocotools.coco import COCO

from findings.dicom_samples import (
    base_affine,
    centres,
    dice,
    make_lesion,
    make_lesions,
    make_masks,
    rotations,
    write_ct,
)
from findings.findings_samples import MODEL, find, find_all, sample_lobes, sample_lungs
from lung_d2.ct import CTVolume, labels_on_grid, read_label_volume, read_volume
from lung_d2.errors import OutputError
from lung_d2.findings.document import build_findings
from lung_d2.findings.files import (
    build_image_index,
    build_results,
    format_lesion_table,
    list_columns,
    write_findings,
    write_lesion_nifti,
)
from lung_d2.findings.page import render_findings_page
from lung_d2.lesions import SliceDetections
from lung_d2.masks import encode_mask
from tiny import ring, square

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MASKS = (square(32, 4, 6, 8), ring(32, 20, 10, 7))


@pytest.mark.parametrize("found", [find_all(), find()])
def test_files_hold_what_is_made_of_the_findings(found: Any, tmp_path: Path) -> None:
    content = write_findings(found, MODEL, tmp_path / "bb")
    assert sorted(path.name for path in (tmp_path / "bb").iterdir()) == ["findings.json", "lesions.csv", "report.html"]
    assert content == build_findings(found, MODEL)
    assert json.loads((tmp_path / "bb" / "findings.json").read_text()) == content
    assert (tmp_path / "bb" / "lesions.csv").read_text() == format_lesion_table(content)
    assert (tmp_path / "bb" / "report.html").read_text("utf-8") == render_findings_page(found, content, MODEL)


def test_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_findings(find_all(), MODEL, tmp_path / folder)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def rows(found: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(format_lesion_table(build_findings(found)))))


def test_columns_are_these_in_this_order() -> None:
    assert ",".join(list_columns()) == (
        "series_hash,lesion_number,category,score,volume_ml,voxel_count,slice_count,long_axis_mm,short_axis_mm,"
        "long_axis_slice_index,mean_hu,sd_hu,p5_hu,median_hu,p95_hu,side,lung_share_percent,reaches_end_of_scan,"
        "extent_right_left_mm,extent_front_back_mm,extent_foot_head_mm,"
        "centroid_x_lps_mm,centroid_y_lps_mm,centroid_z_lps_mm,"
        "first_slice_index,last_slice_index,key_slice_index,key_slice_position_mm,key_slice_sop_instance_uid,"
        "lower_score,volume_at_lower_score_ml,upper_score,volume_at_upper_score_ml,"
        "left_upper_lobe_ml,left_upper_lobe_percent,left_lower_lobe_ml,left_lower_lobe_percent,"
        "right_upper_lobe_ml,right_upper_lobe_percent,right_middle_lobe_ml,right_middle_lobe_percent,"
        "right_lower_lobe_ml,right_lower_lobe_percent"
    )


def test_without_lesions_there_is_the_header_alone() -> None:
    assert format_lesion_table(build_findings(find())) == ",".join(list_columns()) + "\n"


def test_rows_tell_what_the_json_tells() -> None:
    found = find_all(lungs=sample_lungs(), lobes=sample_lobes())
    content = build_findings(found)
    table = rows(found)
    assert [row["lesion_number"] for row in table] == ["1", "2", "3", "4"]
    for row, lesion in zip(table, content["lesions"], strict=True):
        assert float(row["volume_ml"]) == lesion["volume_ml"]
        assert float(row["extent_front_back_mm"]) == lesion["extent_lps_mm"][1]
        assert float(row["centroid_z_lps_mm"]) == lesion["centroid_lps_mm"][2]
        assert float(row["left_lower_lobe_ml"]) == lesion["lobes"][1]["volume_ml"]
        assert row["series_hash"] == "bb"
    assert table[0]["key_slice_position_mm"] == str(16.0)
    assert (table[0]["first_slice_index"], table[0]["last_slice_index"]) == ("8", "15")
    assert (table[2]["lower_score"], table[2]["volume_at_upper_score_ml"]) == ("0.4", "0.0")


@pytest.mark.parametrize("column", ["side", "lung_share_percent", "right_upper_lobe_ml", "key_slice_sop_instance_uid"])
def test_what_is_not_known_is_empty(column: str) -> None:
    assert {row[column] for row in rows(find_all())} == {""}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> CTVolume:
    return read_volume(write_ct(tmp_path_factory.mktemp("ct")))


@pytest.mark.parametrize("geometry", ["axial", "oblique", "tilted"])
def test_masks_return_in_every_geometry(geometry: str, tmp_path: Path) -> None:
    first, second, _ = make_masks()
    for number, rotation in enumerate(rotations()):
        affine = rotation @ base_affine(geometry)
        volume = read_volume(write_ct(tmp_path / str(number), affine))
        path = write_lesion_nifti(make_lesions()[:2], volume, tmp_path / f"{number}.nii.gz")
        image = nibabel.load(path)
        labels = np.asarray(image.dataobj)
        for value, mask in ((1, first), (2, second)):
            found = RAS_TO_LPS @ image.affine
            points = np.argwhere(labels == value) @ found[:3, :3].T + found[:3, 3]
            assert dice(points, mask, affine) == 1.0
            assert np.abs(points.mean(axis=0) - centres(mask, affine).mean(axis=0)).max() < 0.01


def test_values_are_the_numbers_of_the_lesions(volume: CTVolume, tmp_path: Path) -> None:
    first, second, _ = make_masks()
    lesions = [make_lesion(7, first), make_lesion(3, second)]
    labels = labels_on_grid(read_label_volume(write_lesion_nifti(lesions, volume, tmp_path / "a.nii")), volume)
    assert np.array_equal(labels, 7 * first + 3 * second)


@pytest.mark.parametrize("order", [1, -1])
def test_the_smallest_is_seen_where_lesions_overlap(order: int, volume: CTVolume, tmp_path: Path) -> None:
    _, _, inner = make_masks()
    path = write_lesion_nifti(make_lesions()[::order], volume, tmp_path / "a.nii.gz")
    labels = labels_on_grid(read_label_volume(path), volume)
    assert np.array_equal(labels == 3, inner)


@pytest.mark.parametrize(("number", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_type_holds_the_highest_number(number: int, dtype: type, volume: CTVolume, tmp_path: Path) -> None:
    path = write_lesion_nifti([make_lesion(number, make_masks()[0])], volume, tmp_path / "a.nii.gz")
    assert nibabel.load(path).get_data_dtype() == dtype
    assert np.asarray(nibabel.load(path).dataobj).max() == number


def test_no_lesion_is_an_empty_volume(volume: CTVolume, tmp_path: Path) -> None:
    image = nibabel.load(write_lesion_nifti([], volume, tmp_path / "a.nii.gz"))
    assert image.shape == volume.hu.shape[::-1]
    assert not np.asarray(image.dataobj).any()


def test_what_cannot_be_written_is_an_output_error(volume: CTVolume, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_lesion_nifti([], volume, tmp_path / "gone" / "a.nii.gz")


def detections(index=3):
    return SliceDetections(
        slice_index=index,
        boxes=np.array([[6, 4, 14, 12], [10, 20, 17, 27]], np.float32),
        scores=np.array([0.875, 0.5], np.float32),
        category_ids=np.array([2, 1]),
        masks=tuple(encode_mask(mask) for mask in MASKS),
    )


def test_results_by_hand():
    first, second = build_results([detections()])
    assert first == {
        "image_id": 3,
        "category_id": 2,
        "bbox": [6.0, 4.0, 8.0, 8.0],  # x, y, width, height
        "score": 0.875,
        "segmentation": encode_mask(MASKS[0]),
    }
    assert (second["category_id"], second["bbox"]) == (1, [10.0, 20.0, 7.0, 7.0])


def test_slices_follow_each_other():
    assert [result["image_id"] for result in build_results([detections(0), detections(1)])] == [0, 0, 1, 1]


def test_no_detection_is_an_empty_list():
    empty = detections().above(1.0)
    assert build_results([empty, empty]) == []


def test_pycocotools_loads_the_results_over_the_index(tmp_path):
    images = [{"id": index, "height": 32, "width": 32, "file_name": ""} for index in range(4)]
    (tmp_path / "slices.json").write_text(json.dumps(build_image_index(images)))
    (tmp_path / "detections.json").write_text(json.dumps(build_results([detections()])))
    loaded = COCO(str(tmp_path / "slices.json")).loadRes(str(tmp_path / "detections.json"))
    assert sorted(loaded.imgs) == [0, 1, 2, 3]
    annotations = loaded.imgToAnns[3]
    assert [loaded.cats[a["category_id"]]["name"] for a in annotations] == ["bronchiectasis", "ground_glass_opacity"]
    for annotation, mask in zip(annotations, MASKS, strict=True):
        assert np.array_equal(loaded.annToMask(annotation).astype(bool), mask)
