"""`hvc runs` for the terminal."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hvc.base.addresses import public
from hvc.pretrain.tracking.runs import RunRow, Score, duration, is_whole

WIDTH = 100
"""Columns that a listing takes at least where it goes into a file or a pipe."""
_USUAL = "jf_mean"
_COLOURS = {"running": "green", "silent": "red", "stopped": "yellow", "failed": "red", "finished": "blue"}


def print_runs(
    rows: Sequence[RunRow],
    now: float,
    uri: str,
    console: Console,
    label: Callable[[str], str],
    experiments: bool = False,
) -> None:
    """A table of runs, and below it where their newest checkpoints and output folders are.

    Args:
        now: seconds since 1970.
        uri: MLflow's address; its password is not shown.
        label: how a measure is called where people read it.
        experiments: show the experiment of each, too.
    """
    if not rows:
        console.print(
            f"no runs yet at {public(uri)}. `hvc train RECIPE` makes one; --all lists other experiments, "
            "and --tracking-uri or MLFLOW_TRACKING_URI names another place.",
            markup=False,
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("name", overflow="fold", max_width=20)
    if experiments:
        table.add_column("experiment", overflow="fold", max_width=12)
    table.add_column("id", no_wrap=True)
    table.add_column("state", max_width=17)
    for name in ("step", "loss", "images/s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best score", overflow="fold", max_width=24)
    table.add_column("age", justify="right", no_wrap=True)
    for row in rows:
        cells: list[str | Text] = [row.run_id[:8], _state(row), _steps(row), _figure(row.loss, "+.3f")]
        cells += [
            _figure(row.images_per_second, ",.0f"),
            "\n".join(_score(one, label) for one in row.scores) or "-",
        ]
        own: list[str | Text] = [row.name, row.experiment] if experiments else [row.name]
        table.add_row(*map(_plain, [*own, *cells]), duration(now - row.started))
    console.print(table)
    placed = [row for row in rows if row.checkpoint or row.output]
    if placed:
        console.print("\nnewest checkpoints, for `hvc evaluate`, and output folders:", highlight=False)
    for row in placed:
        console.print("\n".join(_places(row)), soft_wrap=True, highlight=False, markup=False)
    if any(row.scores for row in rows):
        console.print("\nscores are J&F unless another measure is named", highlight=False)
    if any(not is_whole(score) for row in rows for score in row.scores):
        console.print("* over some of the benchmark's sequences", highlight=False)


def _places(row: RunRow) -> list[str]:
    """Name and address of a run's newest checkpoint, and the output folder if that is elsewhere."""
    if not row.checkpoint:
        return [f"  {row.name}  {row.run_id[:8]}, no checkpoint yet", f"    {row.output}"]
    lines = [f"  {row.name}  runs:/{row.run_id}@{row.checkpoint_step}", f"    {row.checkpoint}"]
    inside = row.output is None or row.checkpoint.startswith(f"{row.output}/")
    return lines if inside else [*lines, f"    output {row.output}"]


def _plain(cell: str | Text) -> Text:
    """Square brackets in names are no markup."""
    return cell if isinstance(cell, Text) else Text(cell)


def _state(row: RunRow) -> Text:
    return Text(row.state, _COLOURS.get(row.state.split(",")[0].split()[0], ""))


def _steps(row: RunRow) -> str:
    if row.step is None:
        return "-"
    return f"{row.step}/{row.total_steps}" if row.total_steps else str(row.step)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _score(score: Score, label: Callable[[str], str]) -> str:
    measure = "" if score.measure == _USUAL else f" {label(score.measure)}"
    return f"{score.benchmark}{measure} {score.value:.1f}{'' if is_whole(score) else '*'}"
