"""A cohort is complete after any interruption, and the same however it was written."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lung_d2.errors import ConfigError, DatasetError
from lung_d2.phantom import cohort as cohort_module
from lung_d2.phantom import preset_by_name, write_cohort

SMALL = replace(preset_by_name("mini"), matrix=(64, 64), slice_count=2, patients=2)


def contents(folder: Path) -> dict[str, bytes]:
    # gzip writes a time stamp into its header; the masks are compared in test_dicom.py.
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".gz")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_interrupted_cohort_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_cohort(SMALL, tmp_path / "whole")
    real, calls = cohort_module.write_patient, []

    def fail_at_the_second(patient, folder, spec) -> None:
        real(patient, folder, spec)
        calls.append(patient.number)
        if patient.number == 1 and len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(cohort_module, "write_patient", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(SMALL, tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["patient_000"]
    seen: list[tuple[int, int]] = []
    again = write_cohort(SMALL, tmp_path / "cut", progress=lambda done, total: seen.append((done, total)))
    assert calls == [0, 1, 1]
    assert seen == [(1, 2), (2, 2)]
    assert [contents(a) for a in whole] == [contents(b) for b in again]


def test_more_patients_leave_the_first_as_they_are(tmp_path: Path) -> None:
    first = write_cohort(replace(SMALL, patients=1), tmp_path)[0]
    before = contents(first)
    assert len(write_cohort(SMALL, tmp_path)) == 2
    assert contents(first) == before


def test_two_workers_write_what_one_writes(tmp_path: Path) -> None:
    one, two = (write_cohort(SMALL, tmp_path / str(count), workers=count) for count in (1, 2))
    assert [contents(a) for a in one] == [contents(b) for b in two]


def test_another_cohort_in_the_folder_is_refused(tmp_path: Path) -> None:
    write_cohort(replace(SMALL, patients=1), tmp_path)
    with pytest.raises(DatasetError, match="another cohort"):
        write_cohort(replace(SMALL, seed=99), tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file"):
        write_cohort(SMALL, tmp_path / "file" / "cohort")


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="benchmark"):
        write_cohort("huge", tmp_path)


ROOT = Path(__file__).resolve().parents[2]


def run_tool(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_tool_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    done = run_tool("tools/make_phantom.py", "--out", tmp_path / "out", "--preset", "huge")
    assert done.returncode == 2
    assert "huge" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
