from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from lung_d2.data.importers.registry import Importer, PatientRule, check_folder, list_importers
from lung_d2.errors import ConfigError, DatasetError
from lung_d2.files import hash_identity

ROOT = Path("/data")
PLUGIN = """
from lung_d2.data.importers.registry import Importer

def find_cases(request, *, depth=1):
    return []

IMPORTER = Importer("{name}", "a source of ours", find_cases)
NO_IMPORTER = 7
"""


def install(folder, monkeypatch, name="my-tool", entry="plugged_in:IMPORTER"):
    """Install a package that declares an importer, as pip would."""
    (folder / "plugged_in.py").write_text(PLUGIN.format(name=name))
    info = folder / "plugged_in-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[lung_d2.data.importers]\nmine = {entry}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "plugged_in", raising=False)


def test_built_in_importers_go_by_their_names():
    importers = list_importers()
    assert {"dicom", "slices"} <= set(importers)
    assert all(name == importer.name and importer.summary for name, importer in importers.items())


def test_another_package_adds_an_importer(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    importer = list_importers()["my-tool"]
    assert importer.own_options(argparse.Namespace(depth=3, name="x")) == {"depth": 3}


@pytest.mark.parametrize(
    ("name", "entry", "found"),
    [("dicom", "plugged_in:IMPORTER", "a second importer dicom"), ("x", "plugged_in:NO_IMPORTER", "not an importer")],
)
def test_entry_point_that_is_no_new_importer_is_refused(tmp_path, monkeypatch, name, entry, found):
    install(tmp_path, monkeypatch, name, entry)
    with pytest.raises(ConfigError, match=found):
        list_importers()


def test_options_are_what_follows_the_star():
    def find_cases(request, *, images="x", depth=1):
        return []

    own = Importer("a", "b", find_cases).own_options(argparse.Namespace(images="y", depth=2, seed=0))
    assert own == {"images": "y", "depth": 2}


def test_patient_is_what_the_expression_matches():
    rule = PatientRule(pattern=r"^(p\d+)/")
    assert rule.patient_of(ROOT / "p7" / "a.png", ROOT) == hash_identity("patient", "p7")
    with pytest.raises(DatasetError, match=r"x\.png: no match of"):
        rule.patient_of(ROOT / "x.png", ROOT)


@pytest.mark.parametrize("pattern", [r"(p\d)?", r"(p\d)|x", r"(p*)", "x"])
def test_group_without_a_patient_is_no_match(pattern):
    with pytest.raises(DatasetError, match=r"x\.png: no match of .* in 'x\.png'; expected a first group"):
        PatientRule(pattern).patient_of(ROOT / "x.png", ROOT)


def test_patient_may_be_a_folder_or_the_source_itself():
    rule = PatientRule(by_folder=True)
    assert rule.patient_of(ROOT / "p7" / "scan" / "a.png", ROOT, "own") == hash_identity("patient", "p7")
    assert rule.patient_of(ROOT, ROOT) == hash_identity("patient", "data")


def test_file_outside_the_folders_of_patients_is_refused_where_they_count():
    with pytest.raises(DatasetError, match=r"x\.png: a file outside the patients' folders; expected each in"):
        PatientRule(by_folder=True).check_in_folder(ROOT / "x.png", ROOT)
    PatientRule(by_folder=True).check_in_folder(ROOT / "p7" / "x.png", ROOT)
    PatientRule("(x)", by_folder=True).check_in_folder(ROOT / "x.png", ROOT)


def test_patient_may_be_listed_by_name_or_by_path():
    rule = PatientRule(listed={"a.png": "one", "sub/b.png": "two"})
    assert rule.patient_of(ROOT / "a.png", ROOT) == hash_identity("patient", "one")
    assert rule.patient_of(ROOT / "sub" / "b.png", ROOT) == hash_identity("patient", "two")


def test_what_the_source_says_counts_where_the_user_says_nothing():
    assert PatientRule().patient_of(ROOT / "a", ROOT, "own") == "own"
    with pytest.raises(DatasetError, match=r"no patient.*--patients"):
        PatientRule().patient_of(ROOT / "a", ROOT)


def test_broken_expression_is_refused():
    with pytest.raises(DatasetError, match="--patients"):
        PatientRule(pattern="(")


def test_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    check_folder(tmp_path, "cases")
    for name, found in (("file", "a file"), ("none", "no such folder")):
        with pytest.raises(DatasetError, match=f"{name}: {found}; expected a folder of cases"):
            check_folder(tmp_path / name, "cases")
