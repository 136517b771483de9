"""Hostile sources: each ends in one line with the remedy, a status of its own, and nothing under the final name."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from ct.dicom_files import PLANTED, write_series
from lung_d2.command_line import ERROR_STATUS, run_tool
from lung_d2.ct import read_volume, write_nifti
from tiny import square

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_dataset.py"
GGO = "ground_glass_opacity"
NOBODY = 65534
Arguments = list[object]
SPLIT = ("--val-fraction", 0.5, "--allow-duplicates")  # small pictures of squares look alike


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("prepare_dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What is right, for one thing in it to be made wrong.


def make_dicom(root: Path) -> Arguments:
    for number in range(2):
        folder = root / f"case{number}"
        write_series(folder / "dicom", 3, PatientID=f"p{number}", SeriesInstanceUID=f"1.2.{number}")
        labels = np.zeros((3, 6, 5), np.uint8)
        labels[1, 1:4, 1:3] = 1
        write_nifti(labels, read_volume(folder / "dicom").affine_lps, folder / f"{GGO}.nii.gz")
    return ["dicom", root, "--val-fraction", 0.5]


def make_volumes(root: Path) -> Arguments:
    for number in range(2):
        rng = np.random.default_rng(number)
        hu = np.full((4, 24, 24), -1000, np.int16) + rng.integers(0, 900, (4, 24, 24), dtype=np.int16)
        for folder, values in (("images", hu), ("labels", (hu > -300).astype(np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            write_nifti(values, np.diag([0.8, 0.8, 3.0, 1.0]), root / folder / f"scan{number}.nii.gz")
    return ["volumes", root, "--label", f"1={GGO}", *SPLIT]


def make_slices(root: Path) -> Arguments:
    for name in ("a_1.png", "b_1.png"):
        for folder, values in (("images", square(32, 4, 4, 20) * 90), ("ggo", square(32, 8, 8, 9) * 255)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / folder / name), values.astype(np.uint8))
    return ["slices", root, "--masks", f"ggo={GGO}", "--patients", "^([a-z])_", *SPLIT]


def make_coco(root: Path) -> Arguments:
    make_slices(root)
    images = [
        {"id": number, "file_name": name, "width": 32, "height": 32}
        for number, name in enumerate(("a_1.png", "b_1.png"))
    ]
    annotations = [
        {"id": n, "image_id": n, "category_id": 7, "segmentation": [[8, 8, 16, 8, 16, 16, 8, 16]], "iscrowd": 0}
        for n in range(2)
    ]
    write_coco(root, {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "GGO"}]})
    return ["coco", root / "coco.json", "--images", "images", "--patients", "^([a-z])_", *SPLIT]


def write_coco(root: Path, content: dict) -> None:
    (root / "coco.json").write_text(json.dumps(content))


def edit_coco(root: Path, part: str, index: int, **values: object) -> None:
    content = json.loads((root / "coco.json").read_text())
    content[part][index] |= values
    write_coco(root, content)


# What is wrong.


def shift_mask(root: Path) -> None:
    path = root / "case0" / f"{GGO}.nii.gz"
    affine = read_volume(root / "case0" / "dicom").affine_lps.copy()
    affine[0, 3] += 10
    write_nifti(np.ones((3, 6, 5), np.uint8), affine, path)


def shrink_mask(root: Path) -> None:
    write_nifti(
        np.ones((3, 6, 4), np.uint8), read_volume(root / "case0" / "dicom").affine_lps, root / "case0" / f"{GGO}.nii.gz"
    )


def truncate(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def relabel(root: Path) -> None:
    write_nifti(np.full((4, 24, 24), 5, np.uint8), np.diag([0.8, 0.8, 3.0, 1.0]), root / "labels" / "scan0.nii.gz")


def spoil_spacing(root: Path) -> None:
    path = root / "images" / "scan0.nii.gz"
    image = nibabel.load(path)
    header = image.header.copy()
    header["srow_x"] = [np.nan, 0, 0, 0]
    header["pixdim"][1] = np.nan
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, header), path)


def grow_picture(root: Path) -> None:
    cv2.imwrite(str(root / "ggo" / "a_1.png"), np.zeros((40, 32), np.uint8))


def drop_a_slice(root: Path) -> None:
    (root / "case0" / "dicom" / "001.dcm").unlink()


def change_slice_shape(root: Path) -> None:
    dataset = dcmread(root / "case0" / "dicom" / "001.dcm")
    dataset.Rows, dataset.PixelData = 5, dataset.PixelData[:50]
    dataset.save_as(root / "case0" / "dicom" / "001.dcm")


def lead_out(root: Path) -> None:
    outside = root.parent / "outside.png"
    cv2.imwrite(str(outside), np.zeros((32, 32), np.uint8))
    (root / "images" / "a_1.png").unlink()
    (root / "images" / "a_1.png").symlink_to(outside)


Spoil = Callable[[Path], object]
HOSTILE: dict[str, tuple[Callable[[Path], Arguments], Spoil, str]] = {
    "mask of other geometry": (make_dicom, shift_mask, "a grid of"),
    "mask of other size": (make_dicom, shrink_mask, "a grid of"),
    "truncated mask": (make_dicom, lambda root: truncate(root / "case0" / f"{GGO}.nii.gz"), "damaged"),
    "truncated slice": (make_dicom, lambda root: truncate(root / "case0" / "dicom" / "001.dcm", 0.98), "001.dcm"),
    "missing slice": (make_dicom, drop_a_slice, "case0"),
    "slice of other size": (make_dicom, change_slice_shape, "case0"),
    "case without mask": (make_dicom, lambda root: (root / "case1" / f"{GGO}.nii.gz").unlink(), "--allow-unannotated"),
    "series twice": (
        make_dicom,
        lambda root: os.rename(root / "case0", root / "copy") or make_dicom(root),
        "the same series",
    ),
    "label without category": (make_volumes, relabel, "--label"),
    "NaN spacing": (make_volumes, spoil_spacing, "scan0.nii.gz"),
    "image without label": (make_volumes, lambda root: (root / "labels" / "scan0.nii.gz").unlink(), "scan0"),
    "truncated volume": (make_volumes, lambda root: truncate(root / "images" / "scan1.nii.gz"), "scan1.nii.gz"),
    "empty folder": (make_volumes, lambda root: [path.unlink() for path in root.rglob("*.nii.gz")], "images"),
    "mask of another picture size": (make_slices, grow_picture, "its slice's"),
    "picture that is none": (make_slices, lambda root: (root / "images" / "a_1.png").write_bytes(b"GIF89a"), "a_1.png"),
    "masks without pictures": (make_slices, lambda root: (root / "images" / "a_1.png").unlink(), "a_1.png"),
    "empty picture folder": (make_slices, lambda root: [p.unlink() for p in (root / "images").iterdir()], "images"),
    "absolute file_name": (make_coco, lambda root: edit_coco(root, "images", 0, file_name="/etc/passwd"), "path"),
    "file_name with ..": (
        make_coco,
        lambda root: edit_coco(root, "images", 0, file_name="../ggo/a_1.png"),
        "path",
    ),
    "file_name with backslashes": (
        make_coco,
        lambda root: edit_coco(root, "images", 0, file_name="..\\ggo\\a_1.png"),
        "path",
    ),
    "picture that leads out": (make_coco, lead_out, "a_1.png"),
    "image id twice": (make_coco, lambda root: edit_coco(root, "images", 1, id=0), "id"),
    "annotation id twice": (make_coco, lambda root: edit_coco(root, "annotations", 1, id=0), "id"),
    "annotation of no image": (make_coco, lambda root: edit_coco(root, "annotations", 1, image_id=99), "99"),
    "zero-area polygon": (
        make_coco,
        lambda root: edit_coco(root, "annotations", 0, segmentation=[[8, 8, 9, 9, 8, 8]]),
        "annotation",
    ),
    "odd coordinates": (
        make_coco,
        lambda root: edit_coco(root, "annotations", 0, segmentation=[[8, 8, 9, 9, 8]]),
        "annotation",
    ),
    "NaN coordinates": (
        make_coco,
        lambda root: edit_coco(root, "annotations", 0, segmentation=[[8, 8, float("nan"), 9, 8, 30]]),
        "annotation",
    ),
    "record of another size": (make_coco, lambda root: edit_coco(root, "images", 0, width=64), "64"),
    "category unknown": (make_coco, lambda root: edit_coco(root, "categories", 0, name="tumour"), "--label"),
    "JSON that breaks off": (make_coco, lambda root: truncate(root / "coco.json"), "coco.json"),
}


def run(tool, monkeypatch, capsys, arguments: Arguments, root: Path) -> tuple[int, str]:
    words = [str(word) for word in (*arguments, "--name", "made", "--root", root, "--workers", 1)]
    monkeypatch.setattr(sys, "argv", ["prepare_dataset.py", *words])
    with pytest.raises(SystemExit) as caught:
        run_tool(tool.main)
    return int(caught.value.code), capsys.readouterr().err


@pytest.mark.parametrize("make", [make_dicom, make_volumes, make_slices, make_coco])
def test_what_is_right_is_imported(tool, make, tmp_path, monkeypatch, capsys):
    status, err = run(tool, monkeypatch, capsys, make(tmp_path / "source"), tmp_path / "root")
    assert status == 0, err
    assert (tmp_path / "root" / "lung_ct" / "made" / "report.html").is_file()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_source_is_refused_in_one_line(tool, name, tmp_path, monkeypatch, capsys):
    make, spoil, said = HOSTILE[name]
    arguments = make(tmp_path / "source")
    spoil(tmp_path / "source")
    status, err = run(tool, monkeypatch, capsys, arguments, tmp_path / "root")
    assert status == ERROR_STATUS, err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert lines[0] == err.splitlines()[-1]
    assert said in lines[0]
    assert lines[0].count("; ") >= 1  # what was found; what to do
    assert not any(word in err for word in PLANTED)
    assert not (tmp_path / "root" / "lung_ct" / "made").exists()


def test_file_that_may_not_be_read_is_refused(tool, monkeypatch, capsys):
    with TemporaryDirectory() as name:  # where others may enter, as they may not in tmp_path
        folder = Path(name)
        folder.chmod(0o777)
        arguments = make_volumes(folder / "source")
        assert run(tool, monkeypatch, capsys, arguments, folder / "before")[0] == 0  # and now all modules are loaded
        (folder / "source" / "images" / "scan0.nii.gz").chmod(0)
        user = os.geteuid()
        try:
            if user == 0:  # who may read everything
                os.seteuid(NOBODY)
            status, err = run(tool, monkeypatch, capsys, arguments, folder / "root")
        finally:
            os.seteuid(user)
        assert (status, "scan0.nii.gz" in err.splitlines()[-1]) == (ERROR_STATUS, True), err
        assert not (folder / "root" / "lung_ct" / "made").exists()
