from __future__ import annotations

import pytest

from lung_d2.categories import BRONCHIECTASIS
from lung_d2.data.importers.pair_table import LabelFile, Pair, read_pairs
from lung_d2.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ct").mkdir()
    for name in ("ct/a.nii", "ct/b.nii", "m.nrrd", "n.nrrd", "x.txt"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def read(folder, *lines, encoding="utf-8"):
    (folder / "pairs.csv").write_text("\n".join(lines), encoding)
    return read_pairs(folder / "pairs.csv")


@pytest.mark.parametrize("image", ["ct/a.nii", "ct\\a.nii", " ct/a.nii "])
def test_row_pairs_files_beside_the_table(folder, image):
    assert read(folder, "image,label", f"{image},m.nrrd") == [
        Pair(folder / "ct/a.nii", (LabelFile(folder / "m.nrrd"),))
    ]


def test_patient_category_and_further_rows_of_an_image(folder):
    header = "label,patient,image,category,note"
    rows = ("m.nrrd,p,ct/a.nii,bronchiectasis,x", "n.nrrd,p,ct/a.nii,,", ",q,ct/b.nii,,")
    labels = (LabelFile(folder / "m.nrrd", BRONCHIECTASIS), LabelFile(folder / "n.nrrd"))
    expected = [Pair(folder / "ct/a.nii", labels, "p"), Pair(folder / "ct/b.nii", (), "q")]
    assert read(folder, header, *rows, encoding="utf-8-sig") == expected


@pytest.mark.parametrize(
    ("rows", "finding"),
    [
        (["ct/../a.nii,m.nrrd,"], r"pairs\.csv row 2: the path 'ct/\.\./a\.nii'"),
        (["ct/a.nii,m.nrrd,", "ct/b.nii,/etc/m.nrrd,"], "row 3: the path '/etc/m.nrrd'; expected a relative one"),
        (["ct/a.nii,C:\\m.nrrd,"], "row 2: the path"),
        (["ct/c.nii,m.nrrd,"], r"row 2: no file 'ct/c\.nii'"),
        ([f"{'a' * 300}.nii,m.nrrd,"], "row 2: no file"),
        (["ct/a.nii,x.txt,"], "row 2: no volume, 'x.txt'"),
        ([",m.nrrd,"], "row 2: the path ''"),
        (["ct/a.nii,m.nrrd,p", "ct/a.nii,n.nrrd,q"], "row 3: another patient than above"),
        (["ct/a.nii,m.nrrd,", "ct/a.nii,m.nrrd,"], r"a label of a\.nii twice"),
        ([], "expected image, label and rows"),
    ],
)
def test_row_that_cannot_be_used_is_named(folder, rows, finding):
    with pytest.raises(DatasetError, match=finding):
        read(folder, "image,label,patient", *rows)


def test_row_that_ends_early_has_no_label(folder):
    assert read(folder, "image,label,patient", "ct/a.nii") == [Pair(folder / "ct/a.nii")]


def test_category_of_another_name_is_refused(folder):
    with pytest.raises(DatasetError, match="category 'tumour': unknown"):
        read(folder, "image,label,category", "ct/a.nii,m.nrrd,tumour")


def test_columns_are_asked_for(folder):
    with pytest.raises(DatasetError, match=r"columns \['ct', 'seg'\]; expected image, label"):
        read(folder, "ct,seg", "ct/a.nii,m.nrrd")


def test_what_is_no_table_is_refused(folder):
    (folder / "pairs.csv").write_bytes(b"\xff\xfe\x00\x81,")
    with pytest.raises(DatasetError, match="no CSV that can be read"):
        read_pairs(folder / "pairs.csv")
    with pytest.raises(DatasetError, match="no CSV that can be read"):
        read_pairs(folder / "none.csv")
