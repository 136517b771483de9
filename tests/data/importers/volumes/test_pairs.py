from __future__ import annotations

from pathlib import Path

import pytest

from lung_d2.categories import BRONCHIECTASIS
from lung_d2.data.importers.volumes.pairs import (
    LabelFile,
    Pair,
    keys_by_name,
    keys_by_pattern,
    list_volumes,
    pair_by_keys,
    read_pairs,
)
from lung_d2.data.labels import LabelTable
from lung_d2.errors import DatasetError

ROOT = Path("root")


def keys(*names):
    return list(keys_by_name([ROOT / name for name in names]).values())


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def listed(root, pattern):
    return [path.relative_to(root).as_posix() for path in list_volumes(root, pattern)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["study_0255.nii.gz", "study_0256.nii.gz"], ["0255", "0256"]),
        (["study_0255_mask.nii.gz"], ["0255"]),
        (["a-label.nrrd", "b-label.nrrd"], ["a", "b"]),
        (["lung_001_0000.nii.gz", "lung_002_0000.nii.gz"], ["001", "002"]),
        (["v-covid19-A-0047_1_ct.nii", "v-covid19-A-0003_ct.nii"], ["covid19_a_0047_1", "covid19_a_0003"]),
        (["coronacases_001.nii", "radiopaedia_4_85506_1.nii"], ["coronacases_001", "radiopaedia_4_85506_1"]),
        (["1.nii", "2.nii"], ["1", "2"]),
        (["Smith CT.mha", "jones CT.mha"], ["smith", "jones"]),
        (["tr_im.nii.gz"], [""]),
        (["a.nii", "a_b.nii"], ["", "b"]),
    ],
)
def test_key_is_what_tells_names_apart(names, expected):
    assert keys(*names) == expected


def test_folders_tell_files_of_one_name_apart():
    assert keys("v1/CASE1/ct.nii.gz", "v1/CASE2/ct.nii.gz") == ["case1", "case2"]


def test_folder_named_as_its_file_counts_for_nothing():
    assert keys("ct/a_1.nii/a_1.nii", "ct/a_2.nii/a_2.nii") == ["1", "2"]


def test_pattern_names_the_key():
    files = [ROOT / "ct/x-19-pneumonia-7_85703_0-dcm.nii", ROOT / "ct/case009.nii"]
    assert list(keys_by_pattern(files, ROOT, r"(\d+_\d+_\d+|\d+)\D*$", "--image-key").values()) == ["7_85703_0", "009"]


@pytest.mark.parametrize(
    ("pattern", "finding"), [("(", "--image-key '\\('"), ("ct", "no match"), ("(x)?ct", "no match"), ("(\\d{9})", "ct")]
)
def test_pattern_that_names_nothing_is_refused(pattern, finding):
    with pytest.raises(DatasetError, match=finding):
        keys_by_pattern([ROOT / "ct/a1.nii"], ROOT, pattern, "--image-key")


def test_several_labels_of_an_image_are_listed_in_order():
    images = {ROOT / "a.nii": "a", ROOT / "b.nii": "b"}
    labels = {ROOT / "2.nii": "a", ROOT / "1.nii": "a"}
    found = pair_by_keys(images, labels, "rename")
    assert found == {ROOT / "a.nii": [ROOT / "1.nii", ROOT / "2.nii"], ROOT / "b.nii": []}


@pytest.mark.parametrize(
    ("images", "labels", "finding"),
    [
        ({ROOT / "a.nii": "1", ROOT / "b.nii": "1"}, {}, r"b\.nii: paired as '1', as root/a\.nii is; rename"),
        ({ROOT / "a.nii": "1"}, {ROOT / "m.nii": "2"}, r"m\.nii: a label without an image; expected one of '2'"),
    ],
)
def test_what_cannot_be_paired_is_named(images, labels, finding):
    with pytest.raises(DatasetError, match=finding):
        pair_by_keys(images, labels, "rename")


def test_folder_is_listed_with_those_below_and_without_hidden_files(tmp_path):
    touch(tmp_path, "ct/b.nii.gz", "ct/x/a.NRRD", "ct/._b.nii.gz", "ct/.x/c.nii", "ct/readme.txt", "d.nii")
    assert listed(tmp_path, "ct") == ["ct/b.nii.gz", "ct/x/a.NRRD"]


@pytest.mark.parametrize("pattern", ["ct/*_ct.nii", "ct/*ct*", "ct\\*_ct.nii", "c?/?_ct.nii", "**/*_ct.nii"])
def test_pattern_chooses_files(tmp_path, pattern):
    touch(tmp_path, "ct/a_ct.nii", "ct/a_seg.nii", "ct/a_ct.txt")
    assert listed(tmp_path, pattern) == ["ct/a_ct.nii"]


def test_pattern_chooses_folders(tmp_path):
    touch(tmp_path, "s/CT-0/1.nii", "s/CT-1/2.nii", "s/CT-2/3.nii", "s/CT-1/2.nii.gz/2.nii.gz")
    assert listed(tmp_path, "s/CT-[01]") == ["s/CT-0/1.nii", "s/CT-1/2.nii", "s/CT-1/2.nii.gz/2.nii.gz"]


def test_folder_may_be_named_like_a_pattern(tmp_path):
    touch(tmp_path, "ct[1]/a.nii")
    assert listed(tmp_path, "ct[1]") == ["ct[1]/a.nii"]


@pytest.mark.parametrize("pattern", ["../x", "/etc", "C:\\x", "a/../../b", "", "\0"])
def test_pattern_that_leaves_the_source_is_refused(tmp_path, pattern):
    with pytest.raises(DatasetError, match=r"expected a relative one, without '\.\.'"):
        list_volumes(tmp_path, pattern)


@pytest.mark.parametrize("pattern", ["none", "*.nii", "empty"])
def test_nothing_found_is_said(tmp_path, pattern):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no volume; expected \.nii"):
        list_volumes(tmp_path, pattern)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ct").mkdir()
    for name in ("ct/a.nii", "ct/b.nii", "m.nrrd", "n.nrrd", "x.txt"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def read(folder, *lines, encoding="utf-8"):
    (folder / "pairs.csv").write_text("\n".join(lines), encoding)
    return read_pairs(folder / "pairs.csv", LabelTable())


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
    with pytest.raises(DatasetError, match="not a readable CSV file"):
        read_pairs(folder / "pairs.csv", LabelTable())
    with pytest.raises(DatasetError, match="not a readable CSV file"):
        read_pairs(folder / "none.csv", LabelTable())
