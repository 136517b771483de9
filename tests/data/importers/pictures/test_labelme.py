from __future__ import annotations

import base64
import json
import logging
import os
import pickle

import cv2
import numpy as np
import pytest

from ct.dicom_files import make_slice, write
from data.importers.drawn import NAMES, compare, contours_of, grey_slices, lesions_of, make_request, write_pictures
from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.ct import read_volume
from lung_d2.data.importers.pictures.labelme import find_cases
from lung_d2.data.importers.registry import PatientRule
from lung_d2.data.labels import Label
from lung_d2.errors import DatasetError, InputError, LungD2Error
from lung_d2.files import hash_identity

SIZE = (16, 20)
SQUARE = [[2, 3], [8, 3], [8, 7], [2, 7]]
LABELS = {GROUND_GLASS_OPACITY: "GGO", BRONCHIECTASIS: "bronchiectasis"}


def png(values):
    return base64.b64encode(cv2.imencode(".png", values)[1].tobytes()).decode()


# The truth, written with the tool's own conventions.


def polygons(category, number, mask):
    """A polygon for each part; (0, 0) is the picture's corner. They have no holes."""
    return [
        {"label": LABELS[category], "points": (points + 0.5).tolist(), "group_id": number, "shape_type": "polygon"}
        for points, is_hole in contours_of(mask)
        if not is_hole
    ]


def masks(category, number, mask):
    """A PNG of the box, whose last row and column are included in its points."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corners = [[float(columns[0]), float(rows[0])], [float(columns[-1]), float(rows[-1])]]
    return [
        {
            "label": LABELS[category],
            "points": corners,
            "group_id": None,
            "shape_type": "mask",
            "mask": png(crop.astype(np.uint8) * 255),
        }
    ]


def write_truth(folder, draw, *, embedded=False):
    for index, (name, plane) in enumerate(zip(NAMES, grey_slices(), strict=True)):
        record = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [shape for lesion in lesions_of(index) for shape in draw(*lesion)],
            "imagePath": name,
            "imageData": png(plane) if embedded else None,
            "imageHeight": plane.shape[0],
            "imageWidth": plane.shape[1],
        }
        path = folder / name.replace(".png", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))


def test_masks_come_back_exactly(tmp_path):
    write_truth(tmp_path, masks)
    write_pictures(tmp_path)
    cases = find_cases(make_request(tmp_path))
    assert len(cases) == 2
    assert set(compare(cases).values()) == {1.0}


def test_polygons_come_back(tmp_path):
    write_truth(tmp_path, polygons)
    write_pictures(tmp_path)
    scores = compare(find_cases(make_request(tmp_path)))
    assert min(scores[category.name] for category in CATEGORIES) >= 0.97


def test_pictures_inside_the_json_are_taken_where_files_are_missing(tmp_path):
    write_truth(tmp_path, masks, embedded=True)
    assert compare(find_cases(make_request(tmp_path)))["worst"] == 1.0


def test_pictures_of_another_folder_go_by_the_last_part_of_their_path(tmp_path):
    write_truth(tmp_path / "json", masks)
    write_pictures(tmp_path / "png")
    assert compare(find_cases(make_request(tmp_path), images="png"))["worst"] == 1.0


def test_cases_load_in_other_processes(tmp_path):
    write_truth(tmp_path, masks)
    write_pictures(tmp_path)
    assert compare(pickle.loads(pickle.dumps(find_cases(make_request(tmp_path)))))["worst"] == 1.0


# Single files, right and wrong.


def shape(**changes):
    return {"label": "ggo", "points": SQUARE, "group_id": None, "shape_type": "polygon", "flags": {}} | changes


def content(*shapes, **changes):
    record = {"version": "4.5.6", "shapes": list(shapes), "imagePath": "a.png", "imageData": None}
    return record | {"imageHeight": SIZE[0], "imageWidth": SIZE[1]} | changes


@pytest.fixture
def source(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE, 77, np.uint8))
    return tmp_path


def load(source, record, **options):
    """Import the one slice of a file; ``request`` holds what is not the importer's own."""
    (source / "a.json").write_text(record if isinstance(record, str) else json.dumps(record))
    request = make_request(source, **{"patients": PatientRule(r"^(.)"), **options.pop("request", {})})
    return next(iter(find_cases(request, **options)[0].load()))


def areas(item):
    return [(category.coco_id, int(mask.sum())) for category, mask in item.instances]


def test_polygon_covers_the_pixels_between_its_corners(source):
    item = load(source, content(shape()))
    assert areas(item) == [(1, 24)]
    assert item.instances[0][1][3:7, 2:8].all()


def test_shape_without_a_kind_is_a_polygon(source):
    """As labelme wrote before it had others."""
    old = {"label": "ggo", "points": SQUARE, "line_color": None}
    assert areas(load(source, content(old, imageHeight=None, imageWidth=None))) == [(1, 24)]


@pytest.mark.parametrize("corners", [[[2, 3], [8, 7]], [[8, 7], [2, 3]], [[2, 7], [8, 3]], SQUARE])
def test_rectangle_goes_by_any_corners(source, corners):
    assert areas(load(source, content(shape(shape_type="rectangle", points=corners)))) == [(1, 24)]


def test_circle_goes_by_centre_and_rim(source):
    """Of radius 2 around a pixel's centre: 13 pixels."""
    item = load(source, content(shape(shape_type="circle", points=[[8.5, 7.5], [10.5, 7.5]])))
    assert areas(item) == [(1, 13)]
    assert item.instances[0][1][7, 6:11].all()


def test_mask_that_reaches_over_the_edge_is_cut_off(source):
    whole = {"shape_type": "mask", "points": [[-2.2, -1.4], [3, 3]], "mask": png(np.full((5, 6), 255, np.uint8))}
    item = load(source, content(shape(**whole)))
    assert areas(item) == [(1, 4 * 4)]
    assert item.instances[0][1][:4, :4].all()


def test_shapes_of_a_group_are_one_lesion_of_a_label(source):
    apart = [[12, 3], [14, 3], [14, 5], [12, 5]]
    shapes = [
        shape(group_id=1),
        shape(points=apart, group_id=1),
        shape(points=apart, group_id=1, label="bronchiectasis"),
    ]
    assert areas(load(source, content(*shapes))) == [(1, 28), (2, 4)]
    assert areas(load(source, content(shape(), shape(points=apart)))) == [(1, 24), (1, 4)]


@pytest.mark.parametrize(("order", "expected"), [(1, 24 - 4), (-1, 24)])
def test_background_cuts_a_hole_into_what_was_drawn_before(source, order, expected):
    hole = shape(label="_background_", points=[[4, 4], [6, 4], [6, 6], [4, 6]])
    assert areas(load(source, content(*[shape(), hole][::order]))) == [(1, expected)]


def test_label_that_is_mapped_to_background_cuts_nothing(source):
    lung = shape(label="lung", points=[[0, 0], [20, 0], [20, 16], [0, 16]])
    item = load(source, content(shape(), lung), request={"table": {"lung": Label.BACKGROUND}})
    assert areas(item) == [(1, 24)]


def test_ignored_shapes_are_undecided(source):
    item = load(source, content(shape(label="__ignore__")))
    assert (item.instances, int(item.undecided.sum())) == ((), 24)


def test_backslashes_are_read_as_labelme_writes_them(source):
    (source / "pictures").mkdir()
    (source / "a.png").rename(source / "pictures" / "a.png")
    assert areas(load(source, content(shape(), imagePath="pictures\\a.png"))) == [(1, 24)]


def test_path_upwards_is_taken_by_its_last_part_where_the_folder_is_named(source):
    (source / "pictures").mkdir()
    (source / "a.png").rename(source / "pictures" / "a.png")
    assert areas(load(source, content(shape(), imagePath="..\\x\\a.png"), images="pictures")) == [(1, 24)]


def test_picture_without_json_is_named_or_taken_without_lesions(source):
    cv2.imwrite(str(source / "b.png"), np.full(SIZE, 78, np.uint8))
    with pytest.raises(DatasetError, match=r"1 picture\(s\) without a JSON file, b\.png first; .*--allow-unannotated"):
        load(source, content(shape()))
    (source / "a.json").write_text(json.dumps(content(shape())))
    request = make_request(source, patients=PatientRule(r"(\.)"), allow_unannotated=True)
    assert [areas(item) for case in find_cases(request) for item in case.load()] == [[(1, 24)], []]


def test_json_without_shapes_has_no_lesion(source):
    assert load(source, content()).instances == ()


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip", "cuboid"])
def test_shapes_without_area_are_refused_or_left_out_with_a_count(source, kind, caplog):
    record = content(shape(), shape(shape_type=kind), shape(shape_type=kind))
    with pytest.raises(DatasetError, match=rf"a\.json: shape 1: a shape of kind '{kind}'; .*--skip-shapes"):
        load(source, record)
    with caplog.at_level(logging.WARNING):
        item = load(source, record, skip_shapes=True)
    assert areas(item) == [(1, 24)]
    assert f"2 {kind}" in caplog.text


def test_shapes_without_area_matter_only_for_lesions(source):
    record = content(shape(), shape(shape_type="line", label="carina"))
    assert areas(load(source, record, request={"table": {"carina": Label.BACKGROUND}})) == [(1, 24)]


def test_dicom_slice_keeps_hu_and_patient(tmp_path):
    stored = (np.arange(SIZE[0] * SIZE[1], dtype=np.uint16) * 5).reshape(SIZE)
    write(make_slice(stored), tmp_path / "slice.dcm")
    (tmp_path / "slice.json").write_text(json.dumps(content(shape(), imagePath="slice.dcm")))
    (case,) = find_cases(make_request(tmp_path, patients=PatientRule()))
    (item,) = case.load()
    assert item.plane.dtype == np.int16
    assert item.pixel_spacing_mm == (0.5, 0.75)
    assert case.patient == read_volume(tmp_path / "slice.dcm").patient_hash


def test_one_json_file_is_a_source(source):
    (source / "a.json").write_text(json.dumps(content(shape())))
    cv2.imwrite(str(source / "b.png"), np.full(SIZE, 78, np.uint8))
    (case,) = find_cases(make_request(source / "a.json", patients=PatientRule("(.)")))
    assert [areas(item) for item in case.load()] == [[(1, 24)]]


def test_folders_are_patients_on_request(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), np.full(SIZE, 77, np.uint8))
        (tmp_path / name / "a.json").write_text(json.dumps(content(shape())))
    cases = find_cases(make_request(tmp_path, patients=PatientRule(by_folder=True)))
    assert {case.patient for case in cases} == {hash_identity("patient", name) for name in ("x", "y")}


@pytest.mark.parametrize("name", ["a.json", "a.png"])
def test_case_knows_that_a_file_of_it_changed(source, name):
    (source / "a.json").write_text(json.dumps(content(shape())))
    request = make_request(source, patients=PatientRule("(.)"))
    before = find_cases(request)[0].fingerprint
    os.utime(source / name, ns=(1, 1))
    assert find_cases(request)[0].fingerprint != before


HOSTILE = {
    "broken": ('{"shapes": [', "broken JSON"),
    "COCO": ({"images": [], "annotations": []}, "a COCO file; .*give the subcommand coco"),
    "no labelme": ({"images": []}, "no 'shapes'; expected a list"),
    "shapes of another type": (content(shapes={}), "dict as 'shapes'"),
    "shape that is none": (content(3), "int as item 0 of 'shapes'"),
    "no label": (content(shape(label=None)), "shape 0: NoneType as 'label'"),
    "label without a meaning": (content(shape(label="nodule")), "1 label.* 'nodule'"),
    "no picture named": (content(shape(), imagePath=None), r"a\.json: no file name"),
    "missing picture": (content(shape(), imagePath="b.png"), r"a\.json: no picture .*b\.png"),
    "absolute path": (content(shape(), imagePath="/etc/passwd"), "the absolute path '/etc/passwd'"),
    "Windows path": (content(shape(), imagePath="C:\\x\\a.png"), "the absolute path 'C:/x/a.png'"),
    "path upwards": (content(shape(), imagePath="../a.png"), "a path that leads upwards: .*--images"),
    "path upwards of Windows": (content(shape(), imagePath="..\\a.png"), "a path that leads upwards"),
    "path upwards of an inner picture": (
        content(shape(), imagePath="../a.png", imageData=png(np.zeros(SIZE, np.uint8))),
        "a path that leads upwards",
    ),
    "another size": (content(shape(), imageWidth=512), "annotations of a picture of 16 x 512; expected 16 x 20"),
    "two points": (content(shape(points=SQUARE[:2])), r"shape 0: 2 point\(s\)"),
    "no area": (content(shape(points=[[1, 1], [2, 2], [3, 3]])), "shape 0: no area"),
    "NaN": (content(shape(points=[[1, 1], [float("nan"), 2], [3, 9]])), "shape 0: a coordinate that is not finite"),
    "number that overflows": (content(shape(points=[[1, 1], [1e305, 2], [3, 9]])), "shape 0: a coordinate of 1e.305"),
    "huge number": (content(shape(points=[[1, 1], [10**400, 2], [3, 9]])), "shape 0: broken points"),
    "texts": (content(shape(points=[["x", "y"]])), "shape 0: broken points"),
    "numbers": (content(shape(points=[1, 2, 3, 4, 5, 6])), "shape 0: broken points"),
    "uneven points": (content(shape(points=[[1, 2], [3], [4, 5]])), "shape 0: broken points"),
    "points of another type": (content(shape(points="x")), "shape 0: str as 'points'"),
    "outside": (content(shape(points=[[30, 1], [40, 1], [40, 9]])), "shape 0: a polygon outside the picture"),
    "circle of a point": (content(shape(shape_type="circle", points=[[5, 5]])), r"a circle of 1 point\(s\)"),
    "circle without radius": (content(shape(shape_type="circle", points=[[5, 5], [5, 5]])), "a circle without area"),
    "circle outside": (content(shape(shape_type="circle", points=[[50, 5], [51, 5]])), "a circle outside the picture"),
    "rectangle of a point": (content(shape(shape_type="rectangle", points=[[5, 5]])), r"a rectangle of 1 point\(s\)"),
    "rectangle without area": (content(shape(shape_type="rectangle", points=[[5, 5], [9, 5]])), "shape 0: no area"),
    "no mask": (content(shape(shape_type="mask")), "shape 0: mask: not a readable picture"),
    "broken mask": (content(shape(shape_type="mask", mask="AAAA")), "shape 0: mask: not a readable picture"),
    "mask outside": (
        content(shape(shape_type="mask", points=[[50, 5], [52, 7]], mask=png(np.ones((3, 3), np.uint8)))),
        "shape 0: a mask outside the picture",
    ),
}


@pytest.mark.parametrize(("record", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_is_refused_in_one_line(source, record, message):
    with pytest.raises(LungD2Error, match=message) as caught:
        load(source, record)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


COLOURS = np.dstack([np.eye(9, dtype=np.uint8) * level for level in (1, 2, 3)])


@pytest.mark.parametrize(
    ("data", "finding"), [("&", "not a readable picture"), (5, "not a readable"), (png(COLOURS), "a colour picture")]
)
def test_inner_picture_that_is_none_is_refused(source, data, finding):
    (source / "a.png").unlink()
    with pytest.raises(InputError, match=rf"a\.json: imageData: {finding}"):
        load(source, content(shape(), imageData=data))


def test_two_files_of_one_picture_are_refused(source):
    (source / "b.json").write_text(json.dumps(content(shape())))
    with pytest.raises(DatasetError, match=r"a\.png: annotated twice"):
        load(source, content(shape()))


@pytest.mark.parametrize(("name", "message"), [("none", "no such file or folder"), ("empty", "no JSON file")])
def test_source_without_a_file_is_named(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=f"{name}: {message}"):
        find_cases(make_request(tmp_path / name))
