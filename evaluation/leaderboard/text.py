"""The leaderboard for the terminal and as CSV."""

import csv
import io
import math
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hvc.evaluation.leaderboard.board import Board, Entry, Group
from hvc.evaluation.metrics.measures import MAIN, label

WIDTH = 120
"""Columns that a listing takes at least where it goes into a file or a pipe."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def print_board(
    board: Board, where: str, console: Console, limit: int, all_published: bool = False
) -> None:
    """One table per group, best first.

    Args:
        board: what to print.
        where: MLflow's address without its password.
        console: where to.
        limit: measured rows of a table at most.
        all_published: also the published figures of other methods than HVC.
    """
    if not board.groups:
        console.print(
            f"nothing is evaluated yet at {where}. `hvc evaluate CHECKPOINT BENCHMARK DATA` does it; "
            "`hvc leaderboard davis2017` shows published figures; --all takes in all experiments.",
            markup=False,
        )
    for group in board.groups:
        console.print(Text(group.title, "bold"))
        console.print(_table(group, limit, all_published))
        for line in _notes(group, limit, all_published):
            console.print(Text(line, "dim"))
        console.print()
    if len(board.groups) > 1:
        console.print(
            Text(
                "Tables differ in files or protocol: no number of one is to be compared with one of "
                "another.",
                "dim",
            )
        )
    if board.unscored:
        console.print(_unscored(board, limit))


def _table(group: Group, limit: int, all_published: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", justify="right")
    table.add_column("name", overflow="fold", max_width=30)
    table.add_column("id", no_wrap=True)
    table.add_column("step", justify="right", no_wrap=True)
    for measure in group.measures:
        table.add_column(label(measure), justify="right", no_wrap=True)
    measured = [entry for entry in group.entries if entry.kind != "published"]
    if any(entry.steps > 1 for entry in measured):
        table.add_column("last", justify="right", no_wrap=True)
    table.add_column("state", max_width=12)
    table.add_column("evaluated", no_wrap=True)
    table.add_column("remark", overflow="fold", min_width=12)
    for place, entry in _shown(group, limit, all_published):
        cells = [str(place), entry.name, (entry.run_id or "")[:8], _whole(entry.step)]
        cells += [figure(entry.scores.get(measure)) for measure in group.measures]
        if any(one.steps > 1 for one in measured):
            cells.append(f"{figure(entry.last)} @{entry.last_step}" if entry.steps > 1 else "")
        state = "published" if entry.kind == "published" else entry.state
        cells += [state, day(entry.evaluated), entry.remark]
        style = "dim" if entry.kind == "published" else ""
        table.add_row(*map(Text, cells), style=style)  # brackets in names are no markup
    return table


def _shown(group: Group, limit: int, all_published: bool) -> list[tuple[int, Entry]]:
    """Entries with their places among all."""
    rows, measured = [], 0
    for place, entry in enumerate(group.entries, 1):
        measured += entry.kind != "published"
        if not _is_left_out(entry, all_published) and (entry.kind == "published" or measured <= limit):
            rows.append((place, entry))
    return rows


def _is_left_out(entry: Entry, all_published: bool) -> bool:
    return entry.kind == "published" and entry.name != "HVC" and not all_published


def _notes(group: Group, limit: int, all_published: bool) -> list[str]:
    notes = []
    measured = sum(entry.kind != "published" for entry in group.entries)
    if measured > limit:
        notes.append(f"... {measured - limit} more; --limit, --csv and --html show them")
    if any(_is_left_out(entry, all_published) for entry in group.entries):
        notes.append(f"published figures of other methods: hvc leaderboard {group.benchmark}")
    if group.preset and any(entry.kind == "published" for entry in group.entries):
        notes.append("published: by others, each with a protocol of its own, see its remark")
    if any(entry.steps > 1 for entry in group.entries):
        notes.append("step: the best of those evaluated, chosen by these very figures")
    return notes


def _unscored(board: Board, limit: int) -> Text:
    count = len(board.unscored)
    text = Text(f"{count} run{'' if count == 1 else 's'} without a score:", "bold")
    for run in board.unscored[:limit]:
        text.append(f"\n  {run.run_id[:8]}  {run.name}  ", "not bold")
        text.append(run.state, "red not bold" if run.state == "failed" else "not bold")
    if count > limit:
        text.append(f"\n  ... {count - limit} more", "dim not bold")
    return text


def csv_text(board: Board) -> str:
    """One line per entry and per run without a score; numbers unrounded, times in UTC.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    known = {name for group in board.groups for entry in group.entries for name in entry.scores}
    measures = [name for name in MAIN if name in known] + sorted(known - set(MAIN))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = [
        "benchmark",
        "preset",
        "data_digest",
        "sequences",
        "place",
        "kind",
        "name",
        "run_id",
        "experiment",
    ]
    head += ["state", "step", "headline", *measures, "steps", "last_step", "last", "evaluated", "remark"]
    writer.writerow(head)
    for group in board.groups:
        for place, entry in enumerate(group.entries, 1):
            row = [group.benchmark, group.preset, group.digest, group.sequences, place]
            writer.writerow([*map(_cell, [*row, *_values(entry, group.headline, measures)])])
    for run in board.unscored:
        blank = [""] * (len(measures) + 7)
        row = ["", "", "", "", "", "unscored", run.name, run.run_id, run.experiment, run.state, *blank]
        writer.writerow([*map(_cell, row)])
    return buffer.getvalue()


def _values(entry: Entry, headline: str, measures: list[str]) -> list[object]:
    when = ""
    if entry.evaluated is not None:
        when = datetime.fromtimestamp(entry.evaluated, UTC).isoformat(timespec="seconds")
    steps = entry.steps if entry.kind != "published" else ""
    return [
        *(entry.kind, entry.name, entry.run_id, entry.experiment, entry.state, entry.step, headline),
        *(entry.scores.get(name) for name in measures),
        *(steps, entry.last_step, entry.last, when, entry.remark),
    ]


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def figure(value: float | None) -> str:
    """A score in percent with one decimal; nothing where there is none."""
    return "" if value is None else f"{value:.1f}" if math.isfinite(value) else "not finite"


def day(seconds: float | None) -> str:
    """A time since 1970 as a date in UTC."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _whole(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
