from __future__ import annotations

import csv
import io
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from lung_d2.errors import CheckpointError, InputError, OutputError
from lung_d2.recognition.many import recognize_all, restore_results, say_summary
from lung_d2.recognition.sources import Inputs
from lung_d2.recognition.summary import DONE, FAILED, KEPT, Row
from recognition.stand_in_jobs import StandInJob, sources

LOST = BrokenProcessPool("gone")


def run_here(job, series):
    """Run the last series first, as workers may."""
    for source in reversed(series):
        if source.name == "lost":
            yield source, LOST
            continue
        try:
            yield source, job(source)
        except ZeroDivisionError as error:
            yield source, error


def summary(folder):
    return list(csv.DictReader(io.StringIO((folder / "summary.csv").read_text())))


def test_rows_stand_in_the_order_of_the_input(tmp_path):
    rows = recognize_all(Inputs(sources("a", "b", "c")), StandInJob(tmp_path / "out"), run_here)
    assert [row.series_hash for row in rows] == ["a", "b", "c"]
    assert [row["series_hash"] for row in summary(tmp_path / "out")] == ["a", "b", "c"]


def test_defect_is_a_row_without_its_message(tmp_path, caplog):
    rows = recognize_all(Inputs(sources("a", "defect", "b")), StandInJob(tmp_path), run_here)
    assert [row.status for row in rows] == [DONE, FAILED, DONE]
    assert rows[1].found.startswith("a defect of lung_d2 (ZeroDivisionError in stand_in_jobs.py, line ")
    assert "error: /data/defect/DOE^JANE.dcm: a defect" in caplog.text  # the terminal may repeat the path
    assert "DOE" not in (tmp_path / "summary.csv").read_text()


def test_process_that_died_is_a_row(tmp_path):
    (row,) = recognize_all(Inputs(sources("lost")), StandInJob(tmp_path), run_here)
    assert (row.series_hash, row.series_instance_uid, row.status) == ("lost", "1.2.0", FAILED)
    assert row.found == "its process died"


def test_file_that_cannot_be_read_is_a_row(tmp_path, caplog):
    error = InputError("/data/DOE^JANE/a.dcm", found="damaged DICOM header", remedy="copy it again")
    rows = recognize_all(Inputs(sources("a"), (error,)), StandInJob(tmp_path), run_here)
    assert [row.status for row in rows] == [DONE, FAILED]
    assert summary(tmp_path)[1]["error_found"] == "damaged DICOM header"
    assert "DOE" not in (tmp_path / "summary.csv").read_text()
    assert str(error) in caplog.text


def test_model_that_cannot_be_loaded_ends_it(tmp_path):
    def run(job, series):
        job.prepare()
        yield from ()

    with pytest.raises(CheckpointError):
        recognize_all(Inputs(sources("a")), StandInJob(tmp_path, broken="no such file"), run)
    assert not (tmp_path / "summary.csv").exists()


def test_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError):
        recognize_all(Inputs(sources("a")), StandInJob(tmp_path / "out"), run_here)


def test_results_that_a_kill_left_aside_come_back(tmp_path):
    (tmp_path / ".abcd.old").mkdir()
    (tmp_path / ".abcd.old" / "manifest.json").touch()
    (tmp_path / ".ef.old").mkdir()
    (tmp_path / "ef").mkdir()
    restore_results(tmp_path)
    assert (tmp_path / "abcd" / "manifest.json").exists()
    assert not (tmp_path / ".abcd.old").exists()


def test_last_sentence_counts():
    rows = [Row("a", "", status) for status in (DONE, KEPT, KEPT, FAILED)]
    assert say_summary(rows) == "1 series done, 2 kept from before, 1 failed; research use only"


def test_progress_counts_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recognize_all(Inputs(sources("a", "b")), StandInJob(tmp_path), run_here)
    assert "2/2" in capsys.readouterr().err
