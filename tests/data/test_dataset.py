from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from lung_d2.categories import GROUND_GLASS_OPACITY
from lung_d2.data import dataset, importing
from lung_d2.data.cases import AnnotatedSlice, Case
from lung_d2.data.dataset import SplitRule, datasets_root
from lung_d2.data.planes import read_plane
from lung_d2.data.selection import Selection
from lung_d2.errors import DatasetError, OutputError
from lung_d2.files import hash_file_stats
from lung_d2.masks import decode_mask
from tiny import SPACING_MM, square, tiny_cases, write_tiny_dataset

# Small pictures of squares look alike.
write_dataset = partial(dataset.write_dataset, allow_duplicates=True)
SPLITS = {"patient0": "train", "patient1": "train", "patient2": "val"}


def write(root, name="tiny", **options):
    return write_dataset(root, name, tiny_cases(patients=3, size=48), SPLITS, **options)


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def break_off(*_):
    yield AnnotatedSlice(plane=np.zeros((4, 4), np.int16), instances=(), slice_index=0)
    raise DatasetError("mask.nii", found="torn", remedy="copy it again")


def no_slices():
    return ()


def content(folder, split="train"):
    return json.loads((folder / "annotations" / f"{split}.json").read_text())


def test_layout_on_disk(tmp_path):
    files = tree(write(tmp_path))
    images = {f"images/series{case}/{index:04d}.png" for case in range(3) for index in range(4)}
    assert set(files) == images | {"annotations/train.json", "annotations/val.json", "report.json"}


def test_patients_are_in_their_split(tmp_path):
    folder = write(tmp_path)
    assert {image["patient"] for image in content(folder, "train")["images"]} == {"patient0", "patient1"}
    assert {image["patient"] for image in content(folder, "val")["images"]} == {"patient2"}


def test_pycocotools_reads_the_masks_as_they_were(tmp_path):
    folder = write(tmp_path)
    coco = COCO(str(folder / "annotations" / "val.json"))
    source = list(tiny_cases(patients=3, size=48)[2].load())
    assert len(coco.imgs) == 4
    for image_id, image in coco.imgs.items():
        annotations = coco.imgToAnns[image_id]
        instances = source[image["slice_index"]].instances
        assert [annotation["category_id"] for annotation in annotations] == [c.coco_id for c, _ in instances]
        for annotation, (_, mask) in zip(annotations, instances, strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)


def test_slices_without_a_lesion_are_images_too(tmp_path):
    train = content(write(tmp_path))
    annotated = {annotation["image_id"] for annotation in train["annotations"]}
    assert [image["slice_index"] for image in train["images"] if image["id"] not in annotated] == [0, 0]


def test_ids_are_unique(tmp_path):
    train = content(write(tmp_path))
    for kind, count in (("images", 8), ("annotations", 12)):
        assert len({entry["id"] for entry in train[kind]}) == count


def test_record_holds_what_coco_has_no_place_for(tmp_path):
    image = content(write(tmp_path), "val")["images"][1]
    assert image["hu"] is True
    assert image["pixel_spacing_mm"] == list(SPACING_MM)
    assert (image["slice_position_mm"], image["slice_index"], image["series"]) == (2.0, 1, "series2")


def test_neighbours_stay_within_their_series_and_repeat_its_ends(tmp_path):
    images = content(write(tmp_path))["images"]
    names = [[name.split("/")[1] for name in image["neighbours"]] for image in images]
    series = [["0000.png", "0001.png"], ["0000.png", "0002.png"], ["0001.png", "0003.png"], ["0002.png", "0003.png"]]
    assert names == series * 2
    assert all(name.startswith(image["series"] + "/") for image in images for name in image["neighbours"])


def test_slices_that_are_no_series_have_no_neighbours(tmp_path):
    cases = [replace(case, contiguous=False) for case in tiny_cases(patients=3, size=48)]
    assert all("neighbours" not in image for image in content(write_dataset(tmp_path, "x", cases, SPLITS))["images"])


def test_pixels_are_those_of_the_source(tmp_path):
    folder = write(tmp_path)
    source = list(tiny_cases(patients=3, size=48)[1].load())[2]
    assert np.array_equal(read_plane(folder / "images" / "series1" / "0002.png"), source.plane)


def test_empty_mask_is_no_annotation(tmp_path):
    empty = AnnotatedSlice(np.zeros((8, 8), np.int16), ((GROUND_GLASS_OPACITY, square(8, 0, 0, 0)),), 0)
    case = Case("case", "p", "s", partial(tuple, [empty]), contiguous=True)
    assert content(write_dataset(tmp_path, "x", [case], {"p": "train"}))["annotations"] == []


def test_undecided_regions_are_crowds_of_every_category(tmp_path):
    lesion, region = square(8, 0, 0, 3), square(8, 4, 4, 4)
    item = AnnotatedSlice(np.zeros((8, 8), np.int16), ((GROUND_GLASS_OPACITY, lesion),), 0, undecided=region)
    case = Case("case", "p", "s", partial(tuple, [item]), contiguous=True)
    annotations = content(write_dataset(tmp_path, "x", [case], {"p": "train"}))["annotations"]
    assert [(one["category_id"], one["iscrowd"], one["area"]) for one in annotations] == [
        (1, 0, 9),
        (1, 1, 16),
        (2, 1, 16),
    ]
    assert np.array_equal(decode_mask(annotations[1]["segmentation"]), region)


def test_annotations_hold_no_facts(tmp_path):
    folder = write(tmp_path)
    assert not any({"facts", "annotations", "source"} & set(image) for image in content(folder)["images"])


def test_split_rule_deals_patients_once_their_lesions_are_known(tmp_path):
    rule = SplitRule({"train": 0.5, "val": 0.5}, seed=3)
    folder = write_dataset(tmp_path, "x", tiny_cases(patients=4), rule)
    patients = {split: {image["patient"] for image in content(folder, split)["images"]} for split in ("train", "val")}
    assert (len(patients["train"]), len(patients["val"])) == (2, 2)
    assert not patients["train"] & patients["val"]


def test_slice_that_is_in_two_splits_under_other_names_is_refused(tmp_path):
    cases = tiny_cases(patients=2)
    cases[1] = replace(cases[1], load=cases[0].load)
    split = {"patient0": "train", "patient1": "val"}
    with pytest.raises(DatasetError, match=r"case 0 slice 1 \(train\): a copy of case 1 slice 1 \(val\)"):
        dataset.write_dataset(tmp_path, "x", cases, split)
    assert not (tmp_path / "lung_ct" / "x").exists()
    assert len(content(write_dataset(tmp_path, "x", cases, split))["images"]) == 4


def test_rule_that_cannot_be_met_is_refused_before_the_work(tmp_path):
    with pytest.raises(DatasetError, match=r"3 patient\(s\) for 4 splits"):
        write_dataset(tmp_path, "x", tiny_cases(patients=3), SplitRule(dict.fromkeys("abcd", 0.25)))
    assert list(tmp_path.iterdir()) == []


def test_restart_takes_the_patients_as_they_are_now(tmp_path):
    cases = tiny_cases(patients=3, size=48)
    broken_off(tmp_path, cases)
    renamed = [replace(case, patient=f"other{number}") for number, case in enumerate(cases)]
    folder = write_dataset(tmp_path, "tiny", renamed, dict.fromkeys((case.patient for case in renamed), "train"))
    assert {image["patient"] for image in content(folder)["images"]} == {"other0", "other1", "other2"}


def test_selection_is_of_the_training_split_and_leaves_neighbours_on_disk(tmp_path):
    folder = write(tmp_path, selection=Selection(0, 0, 0, lesion_free_ratio=0))
    assert [image["slice_index"] for image in content(folder)["images"]] == [1, 2, 3, 1, 2, 3]
    assert [image["slice_index"] for image in content(folder, "val")["images"]] == [0, 1, 2, 3]
    assert all((folder / "images" / name).is_file() for name in content(folder)["images"][0]["neighbours"])


def test_workers_make_the_same_files(tmp_path):
    assert tree(write(tmp_path / "one")) == tree(write(tmp_path / "two", workers=2))


def test_another_call_that_makes_it_is_not_disturbed(tmp_path):
    cases = tiny_cases(patients=3, size=48)

    def start_again(folder):
        with pytest.raises(DatasetError, match="tiny: another call is making it"):
            write_dataset(tmp_path, "tiny", cases, SPLITS, overwrite=True)

    folder = write_dataset(tmp_path, "tiny", cases, SPLITS, finish=start_again)
    assert tree(folder) == tree(write_dataset(tmp_path / "other", "tiny", cases, SPLITS))
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_what_cannot_be_finished_gets_no_name(tmp_path, caplog):
    def fail(folder):
        assert (folder / "report.json").is_file()
        raise OutputError(folder, found="no space", remedy="make some")

    with caplog.at_level("INFO"), pytest.raises(OutputError, match="no space"):
        write(tmp_path, finish=fail)
    assert [path.name for path in (tmp_path / "lung_ct").iterdir()] == [".tiny.partial"]
    assert ".tiny.partial for the next call" in caplog.text


def test_suspicions_are_logged_by_the_names_of_the_source(tmp_path, caplog):
    speck = AnnotatedSlice(
        np.full((48, 48), 90, np.uint8), ((GROUND_GLASS_OPACITY, square(48, 9, 9, 1)),), 0, name="a.png"
    )
    write_dataset(tmp_path, "x", [Case("c", "p", "s", partial(tuple, [speck]), contiguous=False)], {"p": "train"})
    assert any("a.png" in line and "component" in line.lower() for line in caplog.messages)


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_case_leaves_nothing_under_the_final_name(tmp_path, workers):
    cases = tiny_cases(patients=3, size=48)
    cases[1] = replace(cases[1], load=break_off)
    with pytest.raises(DatasetError, match=r"mask\.nii: torn"):
        write_dataset(tmp_path, "tiny", cases, SPLITS, workers=workers)
    assert [path.name for path in (tmp_path / "lung_ct").iterdir()] == [".tiny.partial"]


def test_restart_makes_the_same_and_does_not_repeat_what_was_done(tmp_path, monkeypatch):
    whole = tree(write(tmp_path / "whole"))
    cases = tiny_cases(patients=3, size=48)
    with pytest.raises(DatasetError):
        write_dataset(tmp_path, "tiny", [*cases[:2], replace(cases[2], load=break_off)], SPLITS)
    imported = []
    real = importing._import_case
    monkeypatch.setattr(
        importing, "_import_case", lambda case, staging: (imported.append(case.name), real(case, staging))
    )
    assert tree(write(tmp_path)) == whole
    assert imported == ["case 2"]


def test_restart_with_other_options_repeats_the_import(tmp_path):
    cases = tiny_cases(patients=3, size=48)
    with pytest.raises(DatasetError):
        write_dataset(tmp_path, "tiny", [*cases[:2], replace(cases[2], load=break_off)], SPLITS)
    other = tiny_cases(patients=3, size=48, seed=1)
    assert tree(write_dataset(tmp_path, "tiny", other, SPLITS)) == tree(
        write_dataset(tmp_path / "whole", "tiny", other, SPLITS)
    )


def broken_off(tmp_path, cases):
    """Run an import that fails in its last case."""
    with pytest.raises(DatasetError, match="torn"):
        write_dataset(tmp_path, "tiny", [*cases[:-1], replace(cases[-1], load=break_off)], SPLITS)


def test_restart_imports_a_case_again_whose_files_changed(tmp_path):
    masks = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, path in enumerate(masks):
        path.write_text(str(number))

    def read(path):
        yield AnnotatedSlice(plane=np.full((4, 4), int(path.read_text()), np.uint8), instances=(), slice_index=0)

    def cases():
        return [
            Case(path.stem, f"patient{path.stem}", path.stem, partial(read, path), False, hash_file_stats([path]))
            for path in masks
        ]

    broken_off(tmp_path, cases())
    masks[1].write_text("9")  # of the same size
    os.utime(masks[1], ns=(1, 1))
    folder = write_dataset(tmp_path, "tiny", cases(), SPLITS)
    assert [read_plane(folder / "images" / str(case) / "0000.png")[0, 0] for case in range(3)] == [0, 9, 2]


def test_nothing_of_an_interrupted_import_with_other_cases_or_splits_stays(tmp_path):
    """Two imports are broken off: one within its cases, one after a split was written."""
    *cases, other = tiny_cases(patients=4, size=48)
    broken_off(tmp_path, [replace(other, patient="patient0"), *cases])
    stale = tmp_path / "lung_ct" / ".tiny.partial" / "annotations" / "test.json"
    stale.parent.mkdir()
    stale.write_text("{}")
    assert tree(write(tmp_path)) == tree(write(tmp_path / "whole"))


def test_case_whose_import_with_other_options_was_killed_is_not_taken_as_done(tmp_path):
    cases = tiny_cases(patients=3, size=48)
    broken_off(tmp_path, cases)
    broken_off(tmp_path, [cases[1], cases[2], replace(cases[0], series="series0")])  # removes the images of case 0
    assert tree(write(tmp_path)) == tree(write(tmp_path / "whole"))


def test_overwrite_that_is_killed_between_leaves_the_earlier_data_set(tmp_path, monkeypatch):
    before = tree(write(tmp_path))
    one = tiny_cases(patients=1, slices=2, size=48)
    real = os.replace

    def killed(source, target):
        if source.name == ".tiny.partial":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("lung_d2.files.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, "tiny", one, {"patient0": "test"}, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(DatasetError, match="a data set of this name"):
        write_dataset(tmp_path, "tiny", one, {"patient0": "test"})
    assert tree(tmp_path / "lung_ct" / "tiny") == before
    write_dataset(tmp_path, "tiny", one, {"patient0": "test"}, overwrite=True)
    assert [path.name for path in (tmp_path / "lung_ct").iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [("~/a", "b", "HOME/a"), (None, "~/b", "HOME/b"), (None, None, "datasets"), ("c", "~/b", "c")],
)
def test_root_of_data_sets(given, variable, expected, monkeypatch):
    monkeypatch.setenv("HOME", "HOME")
    if variable:
        monkeypatch.setenv("DETECTRON2_DATASETS", variable)
    else:
        monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert datasets_root(given) == Path(expected)


def test_root_that_is_a_file_is_named(tmp_path):
    (tmp_path / "root").write_text("")
    with pytest.raises(OutputError, match="root: a file; expected a folder"):
        write(tmp_path / "root")


def test_name_that_is_taken_is_refused(tmp_path):
    before = tree(write(tmp_path))
    with pytest.raises(DatasetError, match="a data set of this name"):
        write(tmp_path)
    assert tree(tmp_path / "lung_ct" / "tiny") == before


def test_overwrite_replaces_all_of_it(tmp_path):
    write(tmp_path)
    one = tiny_cases(patients=1, slices=2, size=48)
    files = tree(write_dataset(tmp_path, "tiny", one, {"patient0": "test"}, overwrite=True))
    images = {"images/series0/0000.png", "images/series0/0001.png"}
    assert set(files) == {"annotations/test.json", "report.json"} | images


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", ".hidden", "a b", "x\0y", "x" * 101])
def test_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match="expected letters, digits"):
        write(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_series_that_comes_twice_is_refused(tmp_path):
    cases = tiny_cases(patients=2)
    cases[1] = replace(cases[1], series=cases[0].series)
    with pytest.raises(DatasetError, match="case 1: the same series as case 0"):
        write_dataset(tmp_path, "x", cases, SPLITS)


def test_patient_without_a_split_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="case 3: no split for its patient"):
        write_dataset(tmp_path, "x", tiny_cases(patients=4), SPLITS)


def test_no_case_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no annotated series or slices"):
        write_dataset(tmp_path, "x", [], SPLITS)


def test_case_without_a_slice_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="case: no slice"):
        write_dataset(tmp_path, "x", [Case("case", "patient0", "s", no_slices, contiguous=True)], SPLITS)


def test_tiny_dataset_is_as_other_tests_take_it(tmp_path):
    """Four patients, one of them in val; three slices in four have a square of 256 px and a ring of 132 px."""
    folder = write_tiny_dataset(tmp_path)
    val = content(folder, "val")
    assert (len(content(folder)["images"]), len(val["images"])) == (12, 4)
    assert [annotation["area"] for annotation in val["annotations"]] == [256, 14 * 14 - 8 * 8] * 3
    assert decode_mask(val["annotations"][1]["segmentation"]).sum() == 132
