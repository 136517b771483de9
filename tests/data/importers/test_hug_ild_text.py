from __future__ import annotations

import pytest

from lung_d2.data.importers import hug_ild_text
from lung_d2.data.importers.hug_ild_text import read_roi_text
from lung_d2.errors import DatasetError

HEADER = ["Study: 1.2.3", "Series: 1.2.4", "SpacingX: 0.5", "SpacingY: 0.75", "SpacingZ: 10.0"]
TRIANGLE = ["nb_points_on_contour: 3", "1.0 2.0", "3.5 2.0", "3.5 4.25"]
ROI = ["label: ground_glass", "localisation: basal/left", "slice_number: 4", *TRIANGLE]


def read(tmp_path, *lines, end="\n"):
    path = tmp_path / "CT-INSPIRIUM-1186.txt"
    path.write_bytes(end.join(lines).encode())
    return read_roi_text(path)


def listed(text):
    return [(each.label, each.slice_number, each.points_mm.tolist()) for each in text.contours]


POINTS = [[1.0, 2.0], [3.5, 2.0], [3.5, 4.25]]


def test_contour_has_label_slice_and_points_in_mm(tmp_path):
    text = read(tmp_path, *HEADER, *ROI)
    assert text.spacing_mm == (0.75, 0.5)
    assert listed(text) == [("ground_glass", 4, POINTS)]
    assert text.place(text.contours[0]).endswith("CT-INSPIRIUM-1186.txt line 9")


def test_label_and_slice_hold_until_the_next(tmp_path):
    more = ["slice_number: 5", *TRIANGLE, *TRIANGLE, "label: healthy", *TRIANGLE]
    found = [(each.label, each.slice_number) for each in read(tmp_path, *HEADER, *ROI, *more).contours]
    assert found == [("ground_glass", 4), ("ground_glass", 5), ("ground_glass", 5), ("healthy", 5)]


@pytest.mark.parametrize("end", ["\r\n", "\r", "  \n", "\t\r\n", "\n\n"])
def test_lines_may_end_in_any_way(tmp_path, end):
    assert listed(read(tmp_path, *HEADER, *ROI, end=end)) == [("ground_glass", 4, POINTS)]


def test_spelling_is_tolerated(tmp_path):
    text = read(tmp_path, "\ufeffLABEL:ground_glass", "Slice_Number : 04", "nb_points_on_contour:3", " 1,0\t2,0 ",
                "3.5  2.", "+3.5 42.5e-1", "spacingx: 0,5", "SPACINGY: .75")  # fmt: skip
    assert listed(text) == [("ground_glass", 4, POINTS)]
    assert text.spacing_mm == (0.75, 0.5)


def test_empty_blocks_mark_nothing(tmp_path):
    text = read(tmp_path, *HEADER, "label: cysts", "slice_number: 2", "nb_points_on_contour: 0", "label: healthy")
    assert (text.contours, text.skipped) == ((), 1)


def test_contour_without_an_area_is_counted(tmp_path):
    text = read(tmp_path, *HEADER, "label: cysts", "slice_number: 2", "nb_points_on_contour: 2", "1 1", "2 2", *ROI)
    assert (len(text.contours), text.skipped) == (1, 1)


@pytest.mark.parametrize("lines", [[], ["Notes on the patients: none"], ["1 2 3", "4 5"]])
def test_text_about_something_else_is_none(tmp_path, lines):
    assert read(tmp_path, *lines) is None


def roi(points="3", slice_number="4", rows=TRIANGLE[1:]):
    return ["label: cysts", f"slice_number: {slice_number}", f"nb_points_on_contour: {points}", *rows]


@pytest.mark.parametrize(
    ("lines", "finding"),
    [
        (roi(points="4"), "line 8: no point 4 of the 4 that line 8 declares; expected two numbers"),
        ([*roi(points="4"), "label: healthy"], "line 12: no point 4 of the 4"),
        ([*roi(), "4 4"], "line 12: a point beyond the number that its contour declares"),
        (roi(points="999999999"), "line 8: no point 4 of the 999999999"),
        (roi(points="9" * 5000), "line 8: a malformed number of points"),
        (roi(points="-3"), "line 8: a malformed number of points"),
        (roi(points="three"), "line 8: a malformed number of points"),
        (roi(slice_number="-4"), "line 7: a malformed slice number; expected a whole number from 1"),
        (roi(slice_number="0"), "line 7: a malformed slice number"),
        (roi(slice_number="4.5"), "line 7: a malformed slice number"),
        (roi(slice_number=""), "line 7: a malformed slice number"),
        (roi(rows=["1 2", "nan 2", "3 3"]), "line 10: no point 2 of the 3"),
        (roi(rows=["1 2", "inf 2", "3 3"]), "line 10: no point 2"),
        (roi(rows=["1 2", "1_0 2", "3 3"]), "line 10: no point 2"),
        (roi(rows=["1 2", "x y", "3 3"]), "line 10: no point 2"),
        (roi(rows=["1 2 3", "1 1 1", "3 3 3"]), "line 9: no point 1"),
        (["slice_number: 4", *TRIANGLE], "line 7: a contour without a label"),
        (["label: cysts", *TRIANGLE], "line 7: a contour without a slice"),
    ],
)
def test_damaged_line_is_named(tmp_path, lines, finding):
    with pytest.raises(DatasetError, match=rf"CT-INSPIRIUM-1186\.txt {finding}") as error:
        read(tmp_path, *HEADER, *lines)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("value", ["nan", "0", "-0.5", "", "1e999", "abc"])
def test_spacing_that_is_none_is_refused(tmp_path, value):
    with pytest.raises(DatasetError, match="no spacingx above 0"):
        read(tmp_path, f"SpacingX: {value}", "SpacingY: 0.5", *ROI)


def test_spacing_that_is_missing_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no spacingy above 0; expected SpacingX and SpacingY in mm"):
        read(tmp_path, "SpacingX: 0.5", *ROI)


def test_file_that_is_no_text_is_read_without_harm(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 40)
    assert read_roi_text(tmp_path / "a.txt") is None
    monkeypatch.setattr(hug_ild_text, "MAX_BYTES", 100)
    with pytest.raises(DatasetError, match="more than 64 MiB"):
        read_roi_text(tmp_path / "a.txt")
    with pytest.raises(DatasetError, match=r"b\.txt: cannot be opened"):
        read_roi_text(tmp_path / "b.txt")
