from __future__ import annotations

import json
import logging
import os
import pickle
import shutil

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ct.dicom_files import make_slice, write
from data.importers.drawn import (
    NAMES,
    PATIENTS,
    compare,
    contours_of,
    grey_slices,
    lesions_of,
    make_request,
    write_pictures,
)
from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.ct import read_volume
from lung_d2.data.importers.pictures.coco import find_cases
from lung_d2.data.importers.registry import PatientRule
from lung_d2.data.labels import Label
from lung_d2.errors import ConfigError, DatasetError, InputError, LungD2Error
from lung_d2.files import hash_identity
from lung_d2.masks import encode_mask

SIZE = (16, 20)
SQUARE = [2, 3, 8, 3, 8, 7, 2, 7]  # 6 x 4 pixels from (2, 3) on
WHOLE = np.zeros(SIZE, bool)
WHOLE[3:7, 2:8] = True


# The truth, written with the tool's own conventions.


def outline(mask):
    """Return the outer contour in COCO's coordinates, where the centre of a pixel is at 0.5."""
    return [(points + 0.5).ravel().tolist() for points, is_hole in contours_of(mask) if not is_hole]


def raw_outline(mask):
    return [points.ravel().tolist() for points, is_hole in contours_of(mask) if not is_hole]


def uncompressed(mask):
    columns = mask.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(columns)) + 1
    runs = np.diff([0, *ends, len(columns)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if columns[0] else runs}


def write_truth(folder, segment, names=NAMES, numbers=range(8)):
    """Write the truth as COCO, with ids that are no indices and categories of other names."""
    annotations = [
        {
            "id": 1000 * index + 10 * category.coco_id + number,
            "image_id": 7 * index + 3,
            "category_id": category.coco_id + 40,
            "segmentation": segment(mask),
            "iscrowd": 0,
            "bbox": coco_mask.toBbox(encode_mask(mask)).tolist(),
            "area": int(mask.sum()),
        }
        for index in numbers
        for category, number, mask in lesions_of(index)
    ]
    height, width = grey_slices().shape[1:]
    images = [
        {"id": 7 * index + 3, "file_name": names[index], "height": height, "width": width, "license": 1}
        for index in numbers
    ]
    categories = [{"id": 41, "name": "GGO"}, {"id": 42, "name": "Bronchiectasis"}, {"id": 99, "name": "never used"}]
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


@pytest.mark.parametrize("segment", [encode_mask, uncompressed], ids=["compressed", "uncompressed"])
def test_rle_comes_back_exactly(tmp_path, segment):
    write_truth(tmp_path / "annotations" / "instances_default.json", segment)
    write_pictures(tmp_path / "images")
    cases = find_cases(make_request(tmp_path))
    assert len(cases) == 2
    assert set(compare(cases).values()) == {1.0}


@pytest.mark.parametrize(
    ("segment", "origin"), [(outline, "corner"), (raw_outline, "centre"), (outline, "auto"), (raw_outline, "auto")]
)
def test_polygons_come_back(tmp_path, segment, origin):
    write_truth(tmp_path / "coco.json", segment)
    write_pictures(tmp_path)
    scores = compare(find_cases(make_request(tmp_path / "coco.json"), pixel_origin=origin))
    assert min(scores[category.name] for category in CATEGORIES) >= 0.97


def test_cases_load_in_other_processes(tmp_path):
    write_truth(tmp_path / "coco.json", encode_mask)
    write_pictures(tmp_path)
    cases = pickle.loads(pickle.dumps(find_cases(make_request(tmp_path))))
    assert set(compare(cases).values()) == {1.0}


@pytest.mark.parametrize(
    ("json_name", "folder"),
    [
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_default.json", "images/default"),
        ("annotations/instances_default.json", "images"),
        ("train/_annotations.coco.json", "train"),
        ("result.json", "."),
        ("result.json", "images"),
    ],
)
def test_pictures_are_found_where_tools_put_them(tmp_path, json_name, folder):
    write_truth(tmp_path / json_name, encode_mask)
    write_pictures(tmp_path / folder)
    assert compare(find_cases(make_request(tmp_path)))["worst"] == 1.0


def test_folder_of_pictures_can_be_named(tmp_path):
    write_truth(tmp_path / "coco.json", encode_mask)
    write_pictures(tmp_path / "slices" / "all")
    assert compare(find_cases(make_request(tmp_path), images="slices/all"))["worst"] == 1.0


def test_several_files_are_taken_together(tmp_path):
    write_truth(tmp_path / "annotations" / "instances_train.json", encode_mask, numbers=range(4))
    write_truth(tmp_path / "annotations" / "instances_val.json", encode_mask, numbers=range(4, 8))
    for index, path in enumerate(write_pictures(tmp_path / "images")):
        folder = tmp_path / ("train" if index < 4 else "val")
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    assert compare(find_cases(make_request(tmp_path)))["worst"] == 1.0


# Single files, right and wrong.


def content(**changes):
    """Give a COCO of one image and one lesion; entries of ``image`` and ``annotation`` are changed by name."""
    image = {"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]} | changes.pop("image", {})
    annotation = {"id": 5, "image_id": 1, "category_id": 2, "segmentation": [SQUARE], "iscrowd": 0}
    annotation |= changes.pop("annotation", {})
    records = {
        "images": [image],
        "annotations": [annotation],
        "categories": [{"id": 2, "name": "ground_glass_opacity"}],
    }
    return records | changes


@pytest.fixture
def source(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE, 77, np.uint8))
    return tmp_path


def load(source, records, **options):
    """Import the one slice of a COCO file; ``request`` holds what is not the importer's own."""
    (source / "coco.json").write_text(records if isinstance(records, str) else json.dumps(records))
    request = make_request(source, **{"patients": PatientRule(r"^(.)"), **options.pop("request", {})})
    return next(iter(find_cases(request, **options)[0].load()))


def test_slice_without_annotation_has_no_lesion(source):
    other = {"id": 3, "file_name": "b.png", "height": SIZE[0], "width": SIZE[1]}
    cv2.imwrite(str(source / "b.png"), np.full(SIZE, 78, np.uint8))
    records = content()
    records["images"].append(other)
    (source / "coco.json").write_text(json.dumps(records))
    items = [item for case in find_cases(make_request(source, patients=PatientRule(r"(\.)"))) for item in case.load()]
    assert [(int(item.plane[0, 0]), len(item.instances)) for item in items] == [(77, 1), (78, 0)]


def test_polygon_covers_the_pixels_between_its_corners(source):
    item = load(source, content())
    assert [category for category, _ in item.instances] == [GROUND_GLASS_OPACITY]
    assert np.array_equal(item.instances[0][1], WHOLE)


def test_polygons_of_an_annotation_are_one_lesion(source):
    item = load(source, content(annotation={"segmentation": [SQUARE, [10, 10, 14, 10, 14, 12, 10, 12]]}))
    assert [int(mask.sum()) for _, mask in item.instances] == [24 + 8]


def test_touching_annotations_are_two_lesions_unless_components_are_asked_for(source):
    records = content()
    records["annotations"].append(
        {"id": 6, "image_id": 1, "category_id": 2, "segmentation": [[8, 3, 9, 3, 9, 7, 8, 7]]}
    )
    assert [int(mask.sum()) for _, mask in load(source, records).instances] == [24, 4]
    one = load(source, records, request={"instances": "components"})
    assert [int(mask.sum()) for _, mask in one.instances] == [28]


def test_crowd_is_undecided(source, caplog):
    records = content()
    crowd = {"id": 6, "image_id": 1, "category_id": 2, "iscrowd": 1, "segmentation": encode_mask(np.ones(SIZE, bool))}
    records["annotations"].append(crowd)
    with caplog.at_level(logging.WARNING):
        item = load(source, records)
    assert "1 annotations with iscrowd are taken as undecided" in caplog.text
    assert len(item.instances) == 1
    assert np.array_equal(item.undecided, ~WHOLE)


@pytest.mark.parametrize(("crowd", "expected"), [("lesion", (1, None)), ("undecided", (0, 24))])
def test_brush_masks_of_cvat_are_what_the_user_says(source, crowd, expected):
    brush = {"iscrowd": 1, "segmentation": encode_mask(WHOLE), "attributes": {"occluded": False}}
    with pytest.raises(DatasetError, match=r"coco\.json: 1 of 1 annotations with iscrowd, .*; give --crowd lesion or"):
        load(source, content(annotation=brush))
    item = load(source, content(annotation=brush), crowd=crowd)
    assert (len(item.instances), None if item.undecided is None else item.undecided.sum()) == expected


@pytest.mark.parametrize("table", [{"Opacity": BRONCHIECTASIS}, {"2": BRONCHIECTASIS}], ids=["name", "id"])
def test_categories_go_by_name_or_id(source, table):
    records = content(categories=[{"id": 2, "name": "opacity"}])
    assert load(source, records, request={"table": table}).instances[0][0] == BRONCHIECTASIS


def test_box_of_what_is_no_lesion_is_left_out(source):
    records = content(categories=[{"id": 2, "name": "lung"}], annotation={"segmentation": [], "bbox": [1, 1, 5, 5]})
    assert load(source, records, request={"table": {"lung": Label.BACKGROUND}}).instances == ()


def test_polygon_between_pixel_centres_counts_as_a_speck(source):
    item = load(source, content(annotation={"segmentation": [[2.6, 2.6, 3.4, 2.6, 3, 3.4]]}))
    assert (item.instances, item.specks) == ((), 1)


def test_spacing_can_be_given(source):
    assert load(source, content()).pixel_spacing_mm is None
    assert load(source, content(), spacing_mm="0.7,0.5").pixel_spacing_mm == (0.7, 0.5)


@pytest.mark.parametrize("spacing", ["nan", "0", "-1", "1,2,3", "x", "inf", ""])
def test_spacing_that_is_none_is_refused(source, spacing):
    with pytest.raises(ConfigError, match="--spacing-mm"):
        load(source, content(), spacing_mm=spacing)


def test_dicom_slice_keeps_hu_spacing_and_patient(source):
    stored = (np.arange(SIZE[0] * SIZE[1], dtype=np.uint16) * 5).reshape(SIZE)
    write(make_slice(stored), source / "slice.dcm")
    (source / "coco.json").write_text(json.dumps(content(image={"file_name": "slice.dcm"})))
    (case,) = find_cases(make_request(source, patients=PatientRule()))
    (item,) = case.load()
    assert np.array_equal(item.plane, stored.astype(np.int16) - 1024)
    assert item.pixel_spacing_mm == (0.5, 0.75)
    assert case.patient == read_volume(source / "slice.dcm").patient_hash


def test_patient_of_the_record_counts_where_no_option_names_another(source):
    (source / "coco.json").write_text(json.dumps(content(image={"patient_id": 12})))
    (case,) = find_cases(make_request(source, patients=PatientRule()))
    assert case.patient == hash_identity("patient", "12")


@pytest.mark.parametrize("name", ["coco.json", "a.png"])
def test_case_knows_that_a_file_of_it_changed(source, name):
    (source / "coco.json").write_text(json.dumps(content()))
    before = find_cases(make_request(source, patients=PatientRule("(.)")))[0].fingerprint
    os.utime(source / name, ns=(1, 1))
    assert find_cases(make_request(source, patients=PatientRule("(.)")))[0].fingerprint != before


def test_file_is_read_again_when_it_changed(source):
    assert load(source, content()).instances[0][1].sum() == 24
    changed = content(annotation={"segmentation": [[2, 3, 8, 3, 8, 5, 2, 5]]})
    assert load(source, changed).instances[0][1].sum() == 12


def twice(records, key):
    return records | {key: records[key] * 2}


HOSTILE = {
    "broken": ('{"images": [', r"coco\.json: broken JSON"),
    "no text": ("\udcff", "broken JSON"),
    "deep": ("[" * 100_000, "broken JSON"),
    "list": ("[]", "a JSON list"),
    "no COCO": ({"x": []}, "no 'images'"),
    "no images": (content(images=[], annotations=[]), "no image; expected a COCO file"),
    "images of another type": (content(images={"1": {}}), "dict as 'images'; expected a list"),
    "image that is none": (content(images=[3]), "int as item 0 of 'images'"),
    "no annotations": (content(annotations=[]), "no shape that gives a mask; .*--allow-unannotated"),
    "two images of an id": (twice(content(), "images"), "two image records of id 1"),
    "two annotations of an id": (twice(content(), "annotations"), "two annotation records of id 5"),
    "two categories of an id": (twice(content(), "categories"), "two category records of id 2"),
    "image without id": (content(image={"id": None}), "image record 0: no id"),
    "unknown image": (content(annotation={"image_id": 9}), "annotation 5: image_id 9, which no record has"),
    "unknown category": (content(annotation={"category_id": 9}), "annotation 5: category_id 9, which no record has"),
    "no category": (content(annotation={"category_id": None}), "annotation 5: no category_id"),
    "category without a meaning": (content(categories=[{"id": 2, "name": "nodule"}]), "1 label.* 'nodule'"),
    "category without a name": (content(categories=[{"id": 2}]), "category 2: no 'name'"),
    "crowd of 7": (content(annotation={"iscrowd": 7}), "annotation 5: iscrowd 7"),
    "absolute path": (content(image={"file_name": "/etc/passwd"}), "image 1: the absolute path '/etc/passwd'"),
    "Windows path": (content(image={"file_name": "C:/a.png"}), "the absolute path 'C:/a.png'"),
    "network path": (content(image={"file_name": "\\\\host\\a.png"}), "the absolute path"),
    "path upwards": (content(image={"file_name": "x/../../a.png"}), "image 1: a path that leads upwards"),
    "path upwards of Windows": (content(image={"file_name": "x\\..\\..\\a.png"}), "a path that leads upwards"),
    "backslashes": (content(image={"file_name": "x\\a.png"}), "a path with backslashes"),
    "no file name": (content(image={"file_name": None}), "image 1: no file name"),
    "empty file name": (content(image={"file_name": ""}), "image 1: no file name"),
    "zero byte": (content(image={"file_name": "a\0.png"}), "image 1: no file name"),
    "missing picture": (content(image={"file_name": "b.png"}), r"image 1: no picture .*b\.png"),
    "two records of a picture": (
        content(images=[{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "./a.png"}]),
        r"a\.png: annotated twice",
    ),
    "another size": (content(image={"height": 99}), r"annotations of a picture of 99 x 20; expected 16 x 20"),
    "size of another type": (content(image={"height": "16"}), "image 1: str as 'height'; expected a whole number"),
    "box only": (
        content(annotation={"segmentation": [], "bbox": [1, 2, 3, 4]}),
        "annotation 5: a shape of kind 'box'",
    ),
    "no segmentation": (content(annotation={"segmentation": None}), "annotation 5: a shape of kind 'box'"),
    "no area": (content(annotation={"segmentation": [[1, 1, 5, 5, 9, 9]]}), "annotation 5: no area"),
    "broken RLE": (content(annotation={"segmentation": {"size": list(SIZE)}}), "annotation 5: broken RLE"),
}


@pytest.mark.parametrize(("records", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_is_refused_in_one_line(source, records, message):
    if records == "\udcff":
        (source / "coco.json").write_bytes(b'{"images": "\xff"}')
        records = None
    with pytest.raises(LungD2Error, match=message) as caught:
        load_as_it_is(source) if records is None else load(source, records)
    assert isinstance(caught.value, DatasetError | InputError)
    assert "\n" not in str(caught.value)


def load_as_it_is(source):
    return find_cases(make_request(source, patients=PatientRule("(.)")))


def test_link_out_of_the_folder_is_refused(source):
    (source / "inside").mkdir()
    shutil.move(source / "a.png", source / "secret.png")
    (source / "inside" / "a.png").symlink_to(source / "secret.png")
    with pytest.raises(DatasetError, match=r"image 1: picture a\.png, a link that leads out"):
        load(source, content(), images="inside")


def test_link_inside_the_folder_is_followed(source):
    (source / "b.png").symlink_to("a.png")
    assert len(load(source, content(image={"file_name": "b.png"})).instances) == 1


def test_set_without_lesions_is_taken_on_request(source):
    item = load(source, content(annotations=[]), request={"allow_unannotated": True})
    assert item.instances == ()


@pytest.mark.parametrize(("name", "message"), [("none", "no such file or folder"), ("empty", "no JSON file")])
def test_source_without_a_file_is_named(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=f"{name}: {message}"):
        find_cases(make_request(tmp_path / name))


def test_missing_folder_of_pictures_is_named(source):
    with pytest.raises(DatasetError, match="pictures: no such folder"):
        load(source, content(), images="pictures")


def test_picture_without_a_patient_is_named(source):
    with pytest.raises(DatasetError, match=r"a\.png: no patient"):
        load(source, content(), request={"patients": PatientRule()})


def test_folders_are_patients_on_request(tmp_path):
    names = [name.replace("_", "/") for name in NAMES]
    write_truth(tmp_path / "coco.json", encode_mask, names)
    for path, name in zip(write_pictures(tmp_path / "all"), names, strict=True):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "images" / name)
    cases = find_cases(make_request(tmp_path, patients=PatientRule(by_folder=True)))
    assert {case.patient for case in cases} == {hash_identity("patient", name) for name in ("p0", "p1")}


def test_pictures_outside_the_patients_folders_are_named(source):
    with pytest.raises(DatasetError, match=r"a\.png: a file outside the patients' folders"):
        load(source, content(), request={"patients": PatientRule(by_folder=True)})


def test_patients_of_the_names_are_two(tmp_path):
    write_truth(tmp_path / "coco.json", encode_mask)
    write_pictures(tmp_path)
    found = {case.patient for case in find_cases(make_request(tmp_path, patients=PATIENTS))}
    assert found == {hash_identity("patient", name) for name in ("p0", "p1")}
