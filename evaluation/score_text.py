"""Scores for people: a table on the terminal, and CSV."""

import csv
import io
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hvc.base.files import write_atomic
from hvc.evaluation.metrics.measures import label
from hvc.evaluation.score import Report

_CLASS = "iou_"


def print_report(report: Report, console: Console) -> None:
    """One line per sequence, the overall scores below; percent."""
    summary = report.summary
    measures = [name for name in summary.scores if not name.startswith(_CLASS)]
    table = Table("sequence", *[label(name) for name in measures], box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in summary.per_sequence.items():
        table.add_row(name, *[f"{values[measure]:.1f}" for measure in measures])
    table.add_section()
    title = f"all {report.sequences}"
    table.add_row(title, *[f"{summary.scores[measure]:.1f}" for measure in measures], style="bold")
    console.print(table)
    for name, value in summary.scores.items():
        if name.startswith(_CLASS):
            console.print(f"{label(name)}: {value:.1f}")


def write_csv(report: Report, path: Path) -> None:
    """One row for all, per sequence and per object; percent in full precision.

    Columns: benchmark, level (`all`, `sequence` or `object`), sequence, object, then the measures. Cells
    are empty where a level has no such measure or name.
    """
    summary = report.summary
    rows = [("all", "", "", summary.scores)]
    rows += [("sequence", name, "", values) for name, values in summary.per_sequence.items()]
    for key, values in summary.per_object.items():
        name, _, number = key.rpartition("/")
        rows.append(("object", name, number, values))
    measures = list(dict.fromkeys(measure for row in rows for measure in row[3]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["benchmark", "level", "sequence", "object", *measures])
    for level, name, number, values in rows:
        cells = [repr(values[measure]) if measure in values else "" for measure in measures]
        writer.writerow([report.benchmark, level, name, number, *cells])
    write_atomic(path, text.getvalue())
