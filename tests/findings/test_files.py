"""The files of a series' findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from findings.findings_samples import MODEL, find, find_all
from lung_d2.findings.document import build_findings
from lung_d2.findings.files import format_lesion_table, write_findings
from lung_d2.findings.page import render_findings_page


@pytest.mark.parametrize("found", [find_all(), find()])
def test_files_hold_what_is_made_of_the_findings(found: Any, tmp_path: Path) -> None:
    content = write_findings(found, MODEL, tmp_path / "bb")
    assert sorted(path.name for path in (tmp_path / "bb").iterdir()) == ["findings.json", "lesions.csv", "report.html"]
    assert content == build_findings(found, MODEL)
    assert json.loads((tmp_path / "bb" / "findings.json").read_text()) == content
    assert (tmp_path / "bb" / "lesions.csv").read_text() == format_lesion_table(content)
    assert (tmp_path / "bb" / "report.html").read_text("utf-8") == render_findings_page(found, content, MODEL)


def test_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_findings(find_all(), MODEL, tmp_path / folder)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
