"""The outputs of a series that are not DICOM, on disk."""

from __future__ import annotations

from pathlib import Path

from lung_d2.files import write_json, write_text
from lung_d2.findings.document import FINDINGS_NAME, Findings, build_findings
from lung_d2.findings.manifest import ModelIdentity
from lung_d2.findings.page import PAGE_NAME, render_findings_page
from lung_d2.findings.schema import FindingsContent
from lung_d2.findings.table import TABLE_NAME, format_lesion_table


def write_findings(found: Findings, model: ModelIdentity, folder: Path) -> FindingsContent:
    """Write ``findings.json``, ``lesions.csv`` and ``report.html``; each is whole or not there.

    The manifest is not among them: it tells how long they took.

    Args:
        found: The findings.
        model: What was run.
        folder: Where; created.

    Returns:
        What ``findings.json`` holds.

    Raises:
        OSError: They cannot be written.
    """
    content = build_findings(found, model)
    write_json(content, folder / FINDINGS_NAME, indent=1)
    write_text(format_lesion_table(content), folder / TABLE_NAME)
    write_text(render_findings_page(found, content, model), folder / PAGE_NAME)
    return content
