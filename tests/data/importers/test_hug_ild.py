from __future__ import annotations

import pickle
from dataclasses import replace

import cv2
import numpy as np
import pydicom
import pytest

from ct.dicom_files import PLANTED, expected_hu, write_series
from data.importers.truth import GEOMETRIES, compare, make_truth, write_ct
from lung_d2.categories import BRONCHIECTASIS, GROUND_GLASS_OPACITY
from lung_d2.data.importers.hug_ild import TISSUES, find_cases
from lung_d2.data.importers.registry import PatientRule, Request
from lung_d2.data.instances import InstanceRule
from lung_d2.data.labels import Label, parse_labels
from lung_d2.errors import DatasetError, GeometryError

SPACING = (0.5, 0.75)  # of rows and columns, as write_series has them


def block(label, number, *contours):
    lines = [f"label: {label}", "localisation: diffuse", f"slice_number: {number}"]
    for points in contours:
        lines += [f"nb_points_on_contour: {len(points)}", *(f"{x:.6f} {y:.6f}" for x, y in points)]
    return lines


def box(left, top, right, bottom):
    """Return the outline of the pixels from (left, top) to (right, bottom), both inside, in mm from the corner."""
    x0, y0, x1, y1 = left * SPACING[1], top * SPACING[0], (right + 1) * SPACING[1], (bottom + 1) * SPACING[0]
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def write_text(path, *blocks, spacing=SPACING):
    header = ["Study: 1.2", "Series: 1.3", f"SpacingX: {spacing[1]}", f"SpacingY: {spacing[0]}", "SpacingZ: 10.0"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*header, *(line for lines in blocks for line in lines)]) + "\n")
    return path


def write_patient(folder, *blocks, names="CT-1186-{:04d}.dcm", **tags):
    """Write a series of 4 slices of 6 x 5 pixels and its text."""
    write_series(folder, names=[names.format(number) for number in range(1, 5)], **tags)
    if blocks:
        write_text(folder / "CT-INSPIRIUM-1186.txt", *blocks)
    return folder


GGO_ON_2 = block("ground_glass", 2, box(1, 2, 3, 4))


def find(root, table=(), only_annotated=False, **options):
    return find_cases(Request(root, parse_labels(table), **options), only_annotated=only_annotated)


def load(root, *table):
    (case,) = find(root, table)
    return list(case.load())


def pixels(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (columns[0], rows[0], columns[-1], rows[-1], int(mask.sum()))


def outlines(mask, spacing):
    """Return the outlines of a mask in mm, a third of a pixel outside the centres of its outermost pixels."""
    fine = np.kron(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    found, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [((each[:, 0] - 1) / 3 + 0.5) * spacing[::-1] for each in found]


def filled(values):
    """Fill the holes of each slice, which an outline cannot show."""
    solid = np.zeros(values.shape, np.uint16)
    for plane, copy in zip(values, solid, strict=True):
        found, _ = cv2.findContours((plane > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        canvas = np.zeros(plane.shape, np.uint8)
        copy[:] = cv2.drawContours(canvas, found, -1, 1, cv2.FILLED)
    return solid


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_round_trip(tmp_path, geometry):
    truth = make_truth(geometry)
    truth = replace(truth, instances={category: filled(values) for category, values in truth.instances.items()})
    spacing = np.linalg.norm(truth.affine_lps[:3, :2], axis=0)[::-1]
    blocks = []
    for number, path in enumerate(write_ct(truth, tmp_path / "35"), 1):
        path.rename(path.with_name(f"CT-1186-{number:04d}.dcm"))
        blocks.append(block("healthy", number, [(1, 1), (1, 3), (3, 3)]))
        for label, category in (("ground_glass", GROUND_GLASS_OPACITY), ("bronchiectasis", BRONCHIECTASIS)):
            blocks.append(block(label, number, *outlines(truth.mask(category)[number - 1], spacing)))
    write_text(tmp_path / "35/CT-INSPIRIUM-1186.txt", *blocks, spacing=spacing)
    (case,) = find(tmp_path)
    scores = compare(case.load(), truth, tmp_path / "35")
    assert min(scores.values()) >= 0.97, scores


def test_contour_fills_the_pixels_inside_it(tmp_path):
    (item,) = load(write_patient(tmp_path / "35", GGO_ON_2))
    ((category, mask),) = item.instances
    assert (category, pixels(mask)) == (GROUND_GLASS_OPACITY, (1, 2, 3, 4, 9))
    assert np.array_equal(item.plane, expected_hu(4)[1])
    assert (item.slice_index, item.pixel_spacing_mm, item.slice_position_mm) == (1, SPACING, 2.0)


def test_slice_goes_by_its_file(tmp_path):
    (case,) = find(write_patient(tmp_path / "35", GGO_ON_2).parent)
    (item,) = case.load()
    assert (tmp_path / item.name).is_file()
    assert item.name.startswith("35/")


def test_what_no_contour_covers_is_undecided(tmp_path):
    healthy = block("healthy", 2, box(0, 0, 4, 1))
    (item,) = load(write_patient(tmp_path / "35", GGO_ON_2, healthy))
    assert not item.lungs.any()  # nothing to go by: anywhere outside the contours may be a lesion
    expected = np.ones((6, 5), bool)
    expected[2:5, 1:4] = expected[:2] = False
    assert np.array_equal(item.undecided, expected)


def test_only_lungs_are_undecided(tmp_path):
    truth = make_truth()
    write_ct(truth, tmp_path / "35")
    spacing = np.linalg.norm(truth.affine_lps[:3, :2], axis=0)[::-1]
    write_text(tmp_path / "35/a.txt", block("ground_glass", 4, [(50, 90), (60, 90), (60, 99)]), spacing=spacing)
    (item,) = load(tmp_path)
    ((_, mask),) = item.instances
    assert item.slice_index == 3
    assert np.array_equal(item.undecided, item.lungs & ~mask)
    assert 0.1 < item.undecided.mean() < 0.5


def test_slices_without_a_decision_are_left_out(tmp_path):
    write_patient(tmp_path / "35", GGO_ON_2, block("healthy", 4, box(0, 0, 2, 2)), block("pcp", 3, box(0, 0, 2, 2)))
    assert [item.slice_index for item in load(tmp_path)] == [1, 3]
    assert [item.slice_index for item in load(tmp_path, "pcp=ground_glass_opacity")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("label", "meaning"), [*TISSUES.items(), ("12", BRONCHIECTASIS), ("Ground glass", GROUND_GLASS_OPACITY)]
)
def test_tissue_has_its_meaning(tmp_path, label, meaning):
    write_patient(tmp_path / "35", block(label, 2, box(1, 1, 3, 3)), block("healthy", 2, box(0, 5, 4, 5)))
    (item,) = load(tmp_path)
    assert [category for category, _ in item.instances] == ([] if isinstance(meaning, Label) else [meaning])
    assert item.undecided[2, 2] == (meaning == Label.IGNORE)


def test_label_of_the_user_counts_first(tmp_path):
    write_patient(tmp_path / "35", GGO_ON_2)
    (item,) = load(tmp_path, "ground_glass=bronchiectasis")
    assert item.instances[0][0] == BRONCHIECTASIS


def test_label_that_means_nothing_is_refused_with_the_option(tmp_path):
    write_patient(tmp_path / "35", block("honeycombing", 2, box(1, 1, 3, 3)))
    with pytest.raises(DatasetError, match=r"1186\.txt: 1 label\(s\) without a category: 'honeycombing'.*--label"):
        find(tmp_path)


def test_slice_number_is_that_of_the_file_name_not_of_the_header(tmp_path):
    write_patient(tmp_path / "35", GGO_ON_2)
    for path in (tmp_path / "35").glob("*.dcm"):
        header = pydicom.dcmread(path)
        header.InstanceNumber = 5 - int(path.stem[-4:])
        header.save_as(path)
    assert load(tmp_path)[0].slice_position_mm == 2.0


@pytest.mark.parametrize("names", ["IM{:d}.dcm", "slice-{:d}0x"])
def test_slices_without_a_number_in_their_name_go_by_the_header(tmp_path, names):
    folder = write_patient(tmp_path / "35", GGO_ON_2, names=names)
    with pytest.raises(DatasetError, match="35: slices without a number, or two of one number"):
        find(tmp_path)
    for path in folder.iterdir():
        if path.suffix != ".txt":
            header = pydicom.dcmread(path)
            header.InstanceNumber = 4 - round(header.ImagePositionPatient[2] / 2)
            header.save_as(path)
    assert load(tmp_path)[0].slice_position_mm == 4.0


def test_numbers_from_0_are_no_slice_numbers(tmp_path):
    folder = write_patient(tmp_path / "35", GGO_ON_2)
    for number, path in enumerate(sorted(folder.glob("*.dcm"))):
        header = pydicom.dcmread(path)
        header.InstanceNumber = number + 1
        header.save_as(path.with_name(f"CT-1186-{number:04d}.dcm"))
        if number == 3:
            path.unlink()
    assert load(tmp_path)[0].slice_position_mm == 2.0


def test_uneven_slices_do_no_harm(tmp_path):
    folder = write_patient(tmp_path / "35", GGO_ON_2, block("ground_glass", 4, box(0, 0, 2, 2)))
    (folder / "CT-1186-0003.dcm").unlink()
    assert [item.slice_position_mm for item in load(tmp_path)] == [2.0, 6.0]


def test_several_texts_of_a_series_count_together(tmp_path):
    folder = write_patient(tmp_path / "35", GGO_ON_2)
    write_text(folder / "more.TXT", block("bronchiectasis", 2, box(0, 0, 1, 1)))
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    (folder / "notes.txt").write_text("about the series\n")
    (item,) = load(tmp_path)
    assert [category.name for category, _ in item.instances] == ["ground_glass_opacity", "bronchiectasis"]


def test_each_contour_may_be_a_lesion(tmp_path):
    write_patient(tmp_path / "35", block("ground_glass", 2, box(0, 0, 1, 1), box(2, 0, 3, 1)))
    assert len(load(tmp_path)[0].instances) == 1
    (case,) = find(tmp_path, rule=InstanceRule("values"))
    assert len(next(case.load()).instances) == 2


def test_folder_with_a_number_is_the_patient(tmp_path):
    for inner in ("8/CT-INSPIRIUM-8871", "8/CT-INSPIRIUM-8873", "HRCT_pilot/200", "HRCT_pilot/201"):
        write_patient(tmp_path / inner, GGO_ON_2)
    cases = find(tmp_path)
    assert [case.name for case in cases] == [
        "8/CT-INSPIRIUM-8871",
        "8/CT-INSPIRIUM-8873",
        "HRCT_pilot/200",
        "HRCT_pilot/201",
    ]
    patients = [case.patient for case in cases]
    assert patients[0] == patients[1]
    assert len(set(patients)) == 3
    assert len({case.series for case in cases}) == 4
    assert len({case.patient for case in find(tmp_path, patients=PatientRule(by_folder=True))}) == 2


def test_patient_is_that_of_the_header_where_no_folder_is_a_number(tmp_path):
    write_patient(tmp_path / "a", GGO_ON_2)
    write_patient(tmp_path / "b", GGO_ON_2)
    first, second = find(tmp_path)
    assert first.patient == second.patient
    assert not any(word in repr((first.patient, first.series, first.name)) for word in PLANTED)


def test_text_may_lie_beside_the_folder_of_its_slices(tmp_path):
    write_patient(tmp_path / "8/CT-INSPIRIUM-8871")
    write_text(tmp_path / "8/CT-INSPIRIUM-8871.txt", GGO_ON_2)
    assert len(load(tmp_path)) == 1


def test_case_goes_to_a_worker(tmp_path):
    (case,) = find(write_patient(tmp_path / "35", GGO_ON_2).parent)
    assert not case.contiguous
    assert len(list(pickle.loads(pickle.dumps(case)).load())) == 1
    assert repr(case.load) == repr(find(tmp_path)[0].load)


@pytest.mark.parametrize("blocks", [(), [block("healthy", 2)], [block("pcp", 2, box(1, 1, 3, 3))]])
def test_series_that_decides_nothing_is_refused_or_left_out(tmp_path, blocks):
    write_patient(tmp_path / "35", GGO_ON_2)
    write_patient(tmp_path / "36", *blocks)
    with pytest.raises(
        DatasetError, match=r"36: it has no regions that decide anything, as 1 of 2 series;.*--only-annotated"
    ):
        find(tmp_path)
    assert [case.name for case in find(tmp_path, only_annotated=True)] == ["35"]


def test_series_without_regions_may_be_without_lesions(tmp_path):
    write_patient(tmp_path / "36")
    (case,) = find(tmp_path, allow_unannotated=True)
    assert [(item.instances, item.undecided) for item in case.load()] == [((), None)] * 4


@pytest.mark.parametrize(
    ("contour", "spacing", "number", "finding"),
    [
        (
            box(1, 2, 3, 4),
            (0.5, 0.5),
            2,
            r"1186\.txt: spacing 0\.5 x 0\.5 mm; expected that of the slices, 0\.5 x 0\.75",
        ),
        (box(1, 2, 8, 4), SPACING, 2, r"txt line 9: a contour that leaves the picture; expected up to 4 x 3 mm"),
        ([(1, 1), (2, 2), (3, 3)], SPACING, 2, "txt line 9: no area"),
        (box(1, 2, 3, 4), SPACING, 5, r"txt line 9: slice 5; expected one of 1 to 4, the 4 slices in .*/35"),
    ],
)
def test_text_that_does_not_fit_its_slices_is_refused(tmp_path, contour, spacing, number, finding):
    folder = write_patient(tmp_path / "35")
    write_text(folder / "CT-INSPIRIUM-1186.txt", block("ground_glass", number, contour), spacing=spacing)
    with pytest.raises((DatasetError, GeometryError), match=finding):
        load(tmp_path)


def test_text_without_slices_is_refused(tmp_path):
    write_patient(tmp_path / "35", GGO_ON_2)
    write_text(tmp_path / "36/CT-INSPIRIUM-77.txt", GGO_ON_2)
    with pytest.raises(DatasetError, match=r"CT-INSPIRIUM-77\.txt: no DICOM slices beside it"):
        find(tmp_path)


def test_empty_source_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no DICOM slices"):
        find(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        find(tmp_path / "none")
