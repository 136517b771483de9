"""An evaluation on disk: ``evaluation.json`` and ``evaluation.html``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lung_d2.evaluation.evaluate import EvaluationSettings, evaluate
from lung_d2.evaluation.page import PAGE_NAME, render_evaluation_page, say_figures, say_headline
from lung_d2.evaluation.results import read_results
from lung_d2.evaluation.truth import Source, read_truth
from lung_d2.files import create_folder, write_json, write_text

logger = logging.getLogger(__name__)

EVALUATION_NAME = "evaluation.json"


def write_evaluation(
    sources: Sequence[Source],
    results: Sequence[Path],
    folder: Path,
    settings: EvaluationSettings | None = None,
    against: Sequence[Path] = (),
    *,
    brief: bool = False,
) -> dict[str, Any]:
    """Measure results files, write what comes out, and log the figures; each file is whole or not there.

    Args:
        sources: The data sets.
        results: The results file of each.
        folder: Where; created.
        settings: How they are measured.
        against: The results files of another model, for a paired comparison; or none.
        brief: Log the headline alone.

    Returns:
        What ``evaluation.json`` holds.

    Raises:
        DatasetError: A data set or a results file is broken, or they do not fit together.
        OutputError: The folder cannot be written.
    """
    create_folder(folder)
    truth = read_truth(sources)
    detections = read_results(results, truth)
    others = read_results(against, truth) if against else None
    content = evaluate(truth, detections, settings, others)
    write_json(content, folder / EVALUATION_NAME, indent=1)
    write_text(render_evaluation_page(content, truth, detections), folder / PAGE_NAME)
    for line in say_headline(content) if brief else say_figures(content):
        logger.info("%s", line)
    logger.info("written to %s", folder / PAGE_NAME)
    return content
