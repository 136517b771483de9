"""Any number of series: handed to workers, counted, and listed in one table."""

from __future__ import annotations

import logging
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from lung_d2.errors import InputError, LungD2Error
from lung_d2.files import create_folder, restore_folder, write_text
from lung_d2.recognition.job import RecognitionJob
from lung_d2.recognition.sources import Inputs, SeriesSource
from lung_d2.recognition.summary import DONE, FAILED, KEPT, SUMMARY_NAME, Row, failed_row, format_summary
from lung_d2.recognition.workers import Outcome

logger = logging.getLogger(__name__)

Runner = Callable[[RecognitionJob, Sequence[SeriesSource]], Iterator[Outcome]]
"""Hands series to workers, as :func:`lung_d2.recognition.workers.run_in_processes`."""


def recognize_all(inputs: Inputs, job: RecognitionJob, run: Runner) -> list[Row]:
    """Recognise every series of an input, each into a folder of its own, and write ``summary.csv``.

    A series that fails does not stop the others.

    Args:
        inputs: From :func:`lung_d2.recognition.sources.find_inputs`.
        job: What is done with each.
        run: How they are handed to workers.

    Returns:
        A row for each series and each unreadable file, in the order of the input.

    Raises:
        OutputError: The output folder cannot be written to.
        LungD2Error: The model cannot be loaded.
    """
    create_folder(job.output)
    restore_results(job.output)
    rows: dict[int, Row] = {}
    places = {id(source): place for place, source in enumerate(inputs.series)}
    with tqdm(total=len(inputs.series), desc="series", unit="series") as bar:
        for source, outcome in run(job, inputs.series):
            rows[places[id(source)]] = outcome if isinstance(outcome, Row) else _defect(source, outcome)
            bar.update()
    return write_summary([rows[place] for place in sorted(rows)], inputs, job.output)


def write_summary(rows: Sequence[Row], inputs: Inputs, output: Path) -> list[Row]:
    """Write ``summary.csv``.

    Args:
        rows: Of the series of the input.
        inputs: Each of its unreadable files is told, and gets a row.
        output: The output folder.

    Returns:
        All rows.
    """
    whole = [*rows, *map(_unreadable, inputs.unreadable)]
    write_text(format_summary(whole), output / SUMMARY_NAME)
    return whole


def restore_results(output: Path) -> None:
    """Bring back every result that a kill left aside."""
    for aside in output.glob(".*.old"):
        restore_folder(output / aside.name.removeprefix(".").removesuffix(".old"))


def say_summary(rows: Sequence[Row]) -> str:
    """Return the sentence that ends a run."""
    counts = Counter(row.status for row in rows)
    return f"{counts[DONE]} series done, {counts[KEPT]} kept from before, {counts[FAILED]} failed; research use only"


def _defect(source: SeriesSource, raised: BaseException) -> Row:
    """Tell what no check foresaw. Its message may quote the file, so only its kind and place are told."""
    if isinstance(raised, BrokenProcessPool):
        error = LungD2Error(source.title, found="its process died", remedy="give it more memory, or fewer workers")
    elif isinstance(raised, LungD2Error):
        error = raised.at(source.title)
    else:
        kind = f"a defect of lung_d2 ({type(raised).__name__}{_place(raised)})"
        error = LungD2Error(source.title, found=kind, remedy="report it, without the images")
    logger.error("error: %s", error)
    return failed_row(source.name, source.series_instance_uid, error, source.paths)


def _place(raised: BaseException) -> str:
    """Return where in the code it was raised: of another process there is only the text of its traceback."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', "".join(traceback.format_exception(raised)))
    return f" in {Path(lines[-1][0]).name}, line {lines[-1][1]}" if lines else ""


def _unreadable(error: InputError) -> Row:
    logger.error("error: %s", error)
    return failed_row("", "", error, [Path(error.where)])
