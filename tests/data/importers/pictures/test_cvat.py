from __future__ import annotations

import logging
import os
import pickle
import zipfile
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import pytest

from ct.dicom_files import make_slice, write
from data.importers.drawn import NAMES, compare, contours_of, grey_slices, lesions_of, make_request, write_pictures
from lung_d2.categories import BRONCHIECTASIS, CATEGORIES, GROUND_GLASS_OPACITY
from lung_d2.ct import read_volume
from lung_d2.data.importers.pictures.cvat import fill_shape, find_cases
from lung_d2.data.importers.pictures.picture_cases import Shape
from lung_d2.data.importers.pictures.shapes import Canvas
from lung_d2.data.importers.registry import PatientRule
from lung_d2.data.labels import Label
from lung_d2.errors import DatasetError, LungD2Error
from lung_d2.files import hash_identity

SIZE = (16, 20)
SQUARE = "2.00,3.00;8.00,3.00;8.00,7.00;2.00,7.00"
HOLE = "4.00,4.00;6.00,4.00;6.00,6.00;4.00,6.00"
LABELS = {GROUND_GLASS_OPACITY: "GGO", BRONCHIECTASIS: "bronchiectasis"}


def element(tag, inner="", **attributes):
    shown = "".join(f" {name}={quoteattr(str(value))}" for name, value in attributes.items() if value is not None)
    return f"<{tag}{shown}>{inner}</{tag}>"


def image(name, *shapes, **changes):
    size = {"id": 0, "name": name, "width": SIZE[1], "height": SIZE[0]} | changes
    return element("image", "".join(shapes), **size)


def polygon(points=SQUARE, label="ggo", **changes):
    shown = {"label": label, "source": "manual", "occluded": 0, "points": points, "z_order": 0} | changes
    return element("polygon", '<attribute name="certain">no</attribute>', **shown)


def mask(rle="0, 6, 6, 6", left=2, top=3, width=6, height=3, **changes):
    box = {"rle": rle, "left": left, "top": top, "width": width, "height": height}
    return element("mask", **({"label": "ggo", "occluded": 0, "z_order": 0} | box | changes))


def document(*images):
    meta = "<version>1.1</version><meta><task><id>7</id><name>CT</name><size>1</size></task></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{meta}{"".join(images)}</annotations>'


# The truth, written with the tool's own conventions.


def draw_polygons(category, number, lesion):
    """Polygons of two decimals in one group; a hole is a polygon of the label background above them."""
    return [
        polygon(
            ";".join(f"{x:.2f},{y:.2f}" for x, y in (_shrink(points) if is_hole else points) + 0.5),
            "background" if is_hole else LABELS[category],
            z_order=int(is_hole),
            group_id=None if is_hole else number,
        )
        for points, is_hole in contours_of(lesion)
    ]


def _shrink(points):
    """Draw the contour of a hole, which runs through the pixels around it, a little inside these."""
    middle = points.mean(axis=0)
    return middle + (points - middle) * 0.9


def draw_masks(category, number, lesion):
    """Runs by rows inside the box of the mask, beginning with background."""
    rows, columns = np.flatnonzero(lesion.any(axis=1)), np.flatnonzero(lesion.any(axis=0))
    crop = lesion[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ends = np.flatnonzero(np.diff(np.concatenate([[False], crop.ravel()]).astype(int))) if crop.size else []
    runs = np.diff([0, *ends, crop.size])
    height, width = crop.shape
    return [mask(", ".join(map(str, runs)), columns[0], rows[0], width, height, label=LABELS[category])]


def write_truth(path, draw, **attributes):
    height, width = grey_slices().shape[1:]
    size = {"width": width, "height": height} | attributes
    images = [
        image(name, *(shape for lesion in lesions_of(index) for shape in draw(*lesion)), **size)
        for index, name in enumerate(NAMES)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(*images))


@pytest.mark.parametrize("folder", ["images", "."])
def test_masks_come_back_exactly(tmp_path, folder):
    write_truth(tmp_path / "annotations.xml", draw_masks)
    write_pictures(tmp_path / folder)
    cases = find_cases(make_request(tmp_path))
    assert len(cases) == 2
    assert set(compare(cases).values()) == {1.0}


def test_polygons_come_back_with_their_holes(tmp_path):
    write_truth(tmp_path / "annotations.xml", draw_polygons)
    write_pictures(tmp_path / "images")
    scores = compare(find_cases(make_request(tmp_path)))
    assert min(scores[category.name] for category in CATEGORIES) >= 0.97
    assert scores["worst"] >= 0.97


def test_pictures_of_a_projects_subset_are_found(tmp_path):
    write_truth(tmp_path / "annotations.xml", draw_masks, subset="Train")
    write_pictures(tmp_path / "images" / "Train")
    assert compare(find_cases(make_request(tmp_path)))["worst"] == 1.0


def test_file_and_folder_can_be_named(tmp_path):
    write_truth(tmp_path / "job_7.xml", draw_masks)
    write_pictures(tmp_path / "slices")
    assert compare(find_cases(make_request(tmp_path / "job_7.xml"), images="slices"))["worst"] == 1.0


def test_cases_load_in_other_processes(tmp_path):
    write_truth(tmp_path / "annotations.xml", draw_masks)
    write_pictures(tmp_path)
    assert compare(pickle.loads(pickle.dumps(find_cases(make_request(tmp_path)))))["worst"] == 1.0


# Single files, right and wrong.


@pytest.fixture
def source(tmp_path):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.full(SIZE, 77, np.uint8))
    return tmp_path


def load(source, *shapes, text=None, **options):
    """Import the one slice of a file; ``request`` holds what is not the importer's own."""
    (source / "annotations.xml").write_text(document(image("a.png", *shapes)) if text is None else text)
    request = make_request(source, **{"patients": PatientRule(r"^(.)"), **options.pop("request", {})})
    return next(iter(find_cases(request, **options)[0].load()))


def areas(item):
    return [(category.coco_id, int(one.sum())) for category, one in item.instances]


def test_polygon_covers_the_pixels_between_its_corners(source):
    item = load(source, polygon())
    assert areas(item) == [(1, 24)]
    assert item.instances[0][1][3:7, 2:8].all()


def test_runs_of_a_mask_go_by_rows_and_begin_with_background(source):
    item = load(source, mask("1, 2, 4, 5"))
    assert np.argwhere(item.instances[0][1]).tolist() == [[3, 3], [3, 4], [4, 3], [4, 4], [4, 5], [4, 6], [4, 7]]


def test_example_of_cvats_manual_is_read():
    """The mask of its page on the XML format: 13 x 15 pixels at (707, 888)."""
    rle = "3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, 5, 3"
    box = {"rle": rle, "left": "707", "top": "888", "width": "13", "height": "15"}
    found = fill_shape(Shape("manual", ("ggo",), "mask", box), Canvas((1000, 1000)))
    assert found[888:903, 707:720].sum() == found.sum() == sum(int(run) for run in rle.split(", ")[1::2])
    assert np.flatnonzero(found[888]).tolist() == [710, 711, 712, 713, 714]


@pytest.mark.parametrize(("orders", "expected"), [((0, 1), 20), ((1, 0), 24), ((0, 0), 20), ((-1, 0), 20)])
def test_background_cuts_a_hole_into_what_lies_below(source, orders, expected):
    item = load(source, polygon(z_order=orders[0]), polygon(HOLE, "background", z_order=orders[1]))
    assert areas(item) == [(1, expected)]


def test_label_that_is_mapped_to_background_cuts_nothing(source):
    item = load(source, polygon(), polygon(HOLE, "vessel"), request={"table": {"vessel": Label.BACKGROUND}})
    assert areas(item) == [(1, 24)]


def test_shapes_of_a_group_are_one_lesion_of_a_label(source):
    apart = "12,3;14,3;14,5;12,5"
    grouped = polygon(group_id=3), polygon(apart, group_id=3), polygon(apart, "bronchiectasis", group_id=3)
    assert areas(load(source, *grouped)) == [(1, 28), (2, 4)]
    assert areas(load(source, polygon(group_id=0), polygon(apart, group_id=0))) == [(1, 24), (1, 4)]


def test_shape_that_is_outside_is_not_there(source):
    assert areas(load(source, polygon(outside=1), polygon(HOLE))) == [(1, 4)]


def test_tags_are_not_read(source):
    assert areas(load(source, polygon(), element("tag", label="checked"))) == [(1, 24)]


@pytest.mark.parametrize("kind", ["box", "ellipse", "polyline", "points", "cuboid", "skeleton"])
def test_shapes_without_a_mask_are_refused_or_left_out_with_a_count(source, kind, caplog):
    shapes = polygon(), element(kind, label="ggo", points="1,1;2,2", xtl=1, ytl=1, xbr=5, ybr=5)
    with pytest.raises(DatasetError, match=rf"image 0 \('a\.png'\), {kind} 1: a shape of kind '{kind}'.*--skip-shapes"):
        load(source, *shapes)
    with caplog.at_level(logging.WARNING):
        assert areas(load(source, *shapes, skip_shapes=True)) == [(1, 24)]
    assert f"1 {kind}" in caplog.text


def test_box_of_what_is_no_lesion_is_left_out(source):
    lung = element("box", label="lung", xtl=1, ytl=1, xbr=5, ybr=5)
    assert areas(load(source, polygon(), lung, request={"table": {"lung": Label.BACKGROUND}})) == [(1, 24)]


def test_image_without_shapes_has_no_lesion(source):
    cv2.imwrite(str(source / "b.png"), np.full(SIZE, 78, np.uint8))
    (source / "annotations.xml").write_text(document(image("a.png", polygon()), image("b.png")))
    cases = find_cases(make_request(source, patients=PatientRule(r"(\.)")))
    assert [areas(item) for case in cases for item in case.load()] == [[(1, 24)], []]


def test_dicom_slice_keeps_hu_and_patient(tmp_path):
    stored = (np.arange(SIZE[0] * SIZE[1], dtype=np.uint16) * 5).reshape(SIZE)
    write(make_slice(stored), tmp_path / "images" / "slice.dcm")
    (tmp_path / "annotations.xml").write_text(document(image("slice.dcm", polygon())))
    (case,) = find_cases(make_request(tmp_path, patients=PatientRule()))
    (item,) = case.load()
    assert (item.plane.dtype, item.pixel_spacing_mm) == (np.int16, (0.5, 0.75))
    assert case.patient == read_volume(tmp_path / "images" / "slice.dcm").patient_hash


def test_folders_are_patients_on_request(tmp_path):
    for name in ("x", "y"):
        (tmp_path / "images" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "images" / name / "a.png"), np.full(SIZE, 77, np.uint8))
    (tmp_path / "annotations.xml").write_text(document(image("x/a.png", polygon()), image("y/a.png", polygon())))
    cases = find_cases(make_request(tmp_path, patients=PatientRule(by_folder=True)))
    assert {case.patient for case in cases} == {hash_identity("patient", name) for name in ("x", "y")}


@pytest.mark.parametrize("name", ["annotations.xml", "a.png"])
def test_case_knows_that_a_file_of_it_changed(source, name):
    (source / "annotations.xml").write_text(document(image("a.png", polygon())))
    request = make_request(source, patients=PatientRule("(.)"))
    before = find_cases(request)[0].fingerprint
    os.utime(source / name, ns=(1, 1))
    assert find_cases(request)[0].fingerprint != before


def one(*shapes, **changes):
    return document(image(changes.pop("name", "a.png"), *shapes, **changes))


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotations>&b;</annotations>'
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><annotations/>'
VIDEO = '<annotations><track id="0" label="ggo"><box frame="0" outside="0"/></track></annotations>'
HOSTILE = {
    "entity bomb": (BOMB, "XML with a document type"),
    "external entity": (EXTERNAL, "XML with a document type"),
    "unknown entity": ("<annotations>&x;</annotations>", "broken XML"),
    "broken": ("<annotations><image>", "broken XML"),
    "empty": ("", "broken XML"),
    "no XML": ("{}", "broken XML"),
    "unknown encoding": ('<?xml version="1.0" encoding="utf-99"?><annotations/>', "broken XML"),
    "another XML": ("<annotation><object/></annotation>", "XML of 'annotation'; expected annotations of CVAT"),
    "video": (VIDEO, "tracks, as in CVAT's video format; expected 'CVAT for images 1.1'"),
    "no image": (document(), "no image"),
    "no shape": (one(), "no shape that gives a mask; .*--allow-unannotated"),
    "no label": (one(polygon(label=None)), "polygon 0: no label"),
    "label without a meaning": (one(polygon(label="nodule")), "1 label.* 'nodule'"),
    "no name": (one(polygon(), name=""), r"image 0 \(''\): no file name"),
    "absolute path": (one(polygon(), name="/etc/passwd"), "the absolute path '/etc/passwd'"),
    "Windows path": (one(polygon(), name="C:/a.png"), "the absolute path"),
    "path upwards": (one(polygon(), name="../a.png"), "a path that leads upwards"),
    "backslashes": (one(polygon(), name="x\\a.png"), "a path with backslashes"),
    "missing picture": (one(polygon(), name="b.png"), r"no picture .*b\.png"),
    "subset upwards": (one(polygon(), name="b.png", subset="../.."), r"no picture .*b\.png"),
    "picture twice": (document(image("a.png", polygon()), image("a.png")), r"a\.png: annotated twice"),
    "another size": (one(polygon(), width=512), "annotations of a picture of 16 x 512; expected 16 x 20"),
    "no size": (one(polygon(), width=None), "no width; expected a whole number"),
    "size of another type": (one(polygon(), width="x"), "width 'x'"),
    "two points": (one(polygon("1,1;5,5")), r"polygon 0: 2 point\(s\)"),
    "no area": (one(polygon("1,1;5,5;9,9")), "polygon 0: no area"),
    "NaN": (one(polygon("1,1;nan,5;9,2")), "polygon 0: .* not finite"),
    "no points": (one(polygon(None)), "polygon 0: broken points"),
    "odd points": (one(polygon("1,1;5;9,2")), "polygon 0: broken points"),
    "texts": (one(polygon("1,1;5,x;9,2")), "polygon 0: broken points"),
    "outside": (one(polygon("30,1;40,1;40,9")), "polygon 0: a polygon outside the picture"),
    "order of another type": (one(polygon(z_order="top")), "polygon 0: z_order 'top'"),
    "mask outside": (one(mask(left=18)), "mask 0: a mask at 18, 3 of 6 x 3; expected one inside the picture"),
    "mask left of the picture": (one(mask(left=-1)), "mask 0: a mask at -1, 3"),
    "mask without rows": (one(mask(height=0)), "a mask at 2, 3 of 6 x 0"),
    "huge mask": (one(mask(width=10**9, height=10**9)), "mask 0: a mask at"),
    "mask without a place": (one(mask(left=None)), "mask 0: no left"),
    "long runs": (one(mask("0, 19")), "mask 0: broken RLE; expected runs of 18 pixels"),
    "negative runs": (one(mask("5, -3, 5")), "broken RLE"),
    "huge runs": (one(mask("0, 99999999999999999999")), "broken RLE"),
    "runs of letters": (one(mask("a, b")), "broken RLE"),
    "no runs": (one(mask(None)), "broken RLE"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_file_is_refused_in_one_line(source, text, message):
    with pytest.raises(LungD2Error, match=message) as caught:
        load(source, text=text)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_zip_is_refused_with_the_remedy(source):
    with zipfile.ZipFile(source / "export.zip", "w") as file:
        file.writestr("annotations.xml", document())
    with pytest.raises(DatasetError, match=r"export\.zip: a ZIP file; .*unpack it"):
        find_cases(make_request(source / "export.zip"))


def test_folder_without_the_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"annotations\.xml: no such file"):
        find_cases(make_request(tmp_path))


@pytest.mark.parametrize("name", ["coco.json", "annotations/instances_default.json"])
def test_export_as_coco_is_sent_to_its_importer(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(DatasetError, match="give the subcommand coco"):
        find_cases(make_request(tmp_path))


def test_source_that_is_not_there_is_neither_file_nor_folder(tmp_path):
    with pytest.raises(DatasetError, match="none: no such file or folder"):
        find_cases(make_request(tmp_path / "none"))


def test_set_without_lesions_is_taken_on_request(source):
    assert load(source, request={"allow_unannotated": True}).instances == ()
