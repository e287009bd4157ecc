"""`hvc jobs` for people: a table, arrays in one line with what is amiss below, pipelines together."""

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import shorten

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hvc.pretrain.tracking.runs import duration
from hvc.slurm.job_states import State
from hvc.slurm.jobs import JobGroup, JobRow, Listing

WIDTH = 120
"""Columns that a listing takes at least where it goes into a file or a pipe."""
_COLOURS = {
    State.RUNNING: "green",
    State.ENDING: "green",
    State.WAITING: "yellow",
    State.STOPPED: "yellow",
    State.DONE: "blue",
    State.FAILED: "red",
    State.LOST: "red",
}
_IN_ORDER = [State.FAILED, State.LOST, *(state for state in State)]
_OTHERS = 100
"""Columns that all but the name may take."""
_MOST_TASKS = 20
_WORDS = 160
_Cells = list[str | Text]


def print_jobs(listing: Listing, now: float, console: Console, everything: bool = False) -> None:
    """A table of submissions, newest first; below it pages, failures and what to do.

    Args:
        now: seconds since 1970.
        everything: show tasks that wait or are done one by one, too.
    """
    if not listing.groups:
        console.print(
            "no jobs of the last day. `hvc submit STAGE ... --cluster FILE` makes one; --all lists older "
            "ones, and --folder looks below another folder than those that you submitted to.",
            markup=False,
        )
    else:
        console.print(_table(listing.groups, now, everything, console.width))
        for line in _notes(listing.groups):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    if listing.problem:
        console.print(
            f"\nSlurm could not be asked ({listing.problem}): this is what the folders know. See `scontrol "
            "ping`; on another machine than a login node there may be no Slurm.",
            soft_wrap=True,
            markup=False,
            style="yellow",
        )
    elif listing.remark:
        console.print(
            f"\nSlurm's accounting could not be asked ({listing.remark}): how jobs ended that the "
            "controller has forgotten is told by their folders alone.",
            soft_wrap=True,
            markup=False,
            style="yellow",
        )


def _table(groups: Sequence[JobGroup], now: float, everything: bool, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("job", no_wrap=True)
    table.add_column("name", overflow="fold", max_width=max(24, width - _OTHERS))
    table.add_column("state", overflow="fold", max_width=34)
    table.add_column("nodes", overflow="fold", max_width=14)
    for name in ("attempt", "step", "images/s", "left", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    for members in _by_parent(groups):
        parent = members[0].submission.group
        if parent is not None:
            count = Counter(row.state for group in members for row in group.rows)
            table.add_row("", Text(parent, "bold"), _summary(count), "", "", "", "", "", "")
        for group in members:
            for cells in _group_rows(group, now, everything, "  " if parent else ""):
                table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells))
    return table


def _by_parent(groups: Sequence[JobGroup]) -> Iterator[list[JobGroup]]:
    """Submissions of one pipeline or sweep together, where its newest one stands, oldest first."""
    together: dict[str, list[JobGroup]] = {}
    for group in groups:
        together.setdefault(group.submission.parent or str(group.folder), []).append(group)
    for members in together.values():
        yield sorted(members, key=lambda group: group.submission.submitted)


def _group_rows(group: JobGroup, now: float, everything: bool, indent: str) -> Iterator[_Cells]:
    submission = group.submission
    name = (
        submission.name
        if submission.name.startswith(submission.stage)
        else f"{submission.name} ({submission.stage})"
    )
    age = duration(now - submission.submitted)
    if submission.array is None:
        yield _cells(group.rows[0], indent, name, age)
        return
    tasks = [row for row in group.rows if row.role == "task"]
    counts = Counter(row.state for row in tasks)
    head = f"{indent}{submission.job_id}[{submission.array}]"
    yield [head, name, _summary(counts), "", "", "", "", "", age]
    for row in _shown_tasks(tasks, everything):
        yield _cells(row, f"{indent}  ", f"  task {row.task}", "")
    for row in group.rows:
        if row.role == "join":
            yield _cells(row, f"{indent}  ", "  joins them", "")


def _shown_tasks(tasks: Sequence[JobRow], everything: bool) -> Sequence[JobRow]:
    if everything:
        return tasks
    quiet = (State.WAITING, State.DONE)
    loud = [row for row in tasks if row.state not in quiet or row.progress or _comes_back(row)]
    return sorted(loud, key=lambda row: _IN_ORDER.index(row.state))[:_MOST_TASKS]


def _comes_back(row: JobRow) -> bool:
    return row.state is State.WAITING and row.attempt is not None


def _cells(row: JobRow, indent: str, name: str, age: str) -> _Cells:
    progress = row.progress
    step = speed = left = ""
    if progress is not None and progress.step is not None:
        step = f"{progress.step}/{progress.total_steps}" if progress.total_steps else str(progress.step)
        if row.state is State.RUNNING:
            speed = "" if progress.images_per_second is None else f"{progress.images_per_second:,.0f}"
            left = "" if progress.seconds_left is None else duration(progress.seconds_left)
    attempt = "" if row.attempt is None else str(row.attempt)
    return [f"{indent}{row.job_id}", name, _state(row), row.nodes, attempt, step, speed, left, age]


def _state(row: JobRow) -> Text:
    words = str(row.state)
    if _comes_back(row):
        words = "waiting to go on"
    if row.reason and row.state is not State.FAILED:
        words += (
            f" {row.reason}" if row.reason.startswith(("for ", "behind ", "after ")) else f": {row.reason}"
        )
        words = shorten(words, _WORDS)
    return Text(words, _COLOURS.get(row.state, ""))


def _summary(counts: Counter[State]) -> Text:
    text = Text()
    for state in dict.fromkeys(_IN_ORDER):
        if counts[state]:
            text.append(", " if text else "").append(f"{counts[state]} {state}", _COLOURS.get(state, ""))
    return text


def _notes(groups: Sequence[JobGroup]) -> Iterator[str]:
    """Pages of runs, errors of what failed, and what can be done about it."""
    links = [(row.job_id, link) for group in groups for row in group.rows if (link := _link(row))]
    failed = [row for group in groups for row in group.rows if row.state is State.FAILED]
    stopped = [row for group in groups for row in group.rows if row.state in (State.STOPPED, State.LOST)]
    if links:
        yield ""
        yield from (f"  {job_id}  {link}" for job_id, link in links)
    if failed:
        yield "\nfailed, see `hvc logs JOB`, then `hvc requeue JOB` goes on:"
        yield from (f"  {row.job_id}  {row.reason or 'no reason is known'}" for row in failed[:_MOST_TASKS])
        if len(failed) > _MOST_TASKS:
            yield f"  and {len(failed) - _MOST_TASKS} more"
    if stopped:
        yield f"\n`hvc requeue JOB` goes on with {', '.join(row.job_id for row in stopped[:_MOST_TASKS])}"


def _link(row: JobRow) -> str | None:
    return row.progress.link if row.progress else None
