"""The last job of a pipeline: what came out of every task, a table of scores, and the end of its run."""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hvc.base.addresses import public
from hvc.base.config import Config
from hvc.base.errors import HvcError
from hvc.base.files import read_json, write_atomic
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.slurm.job_records import newest_attempt
from hvc.slurm.known_jobs import KnownJob, ask_controller
from hvc.slurm.pipeline_outputs import done_of, run_of_task, scores_of
from hvc.slurm.pipeline_plan import Task, cause_of, digest_of
from hvc.slurm.pipeline_state import PipelineState

REPORT, TABLE, PAGE = "report.json", "report.txt", "leaderboard.html"
KEY = "report"
_log = logging.getLogger(__name__)


class ReportConfig(Config):
    """Which pipeline."""

    folder: str
    """Its folder."""
    output: str
    """The same: where the report goes."""
    tracking_uri: str | None = None
    """MLflow; by default MLFLOW_TRACKING_URI, else outputs/mlflow.db here."""


@dataclass(frozen=True)
class Row:
    """What became of a task."""

    key: str
    stage: str
    state: str
    """done, failed, or not begun."""
    output: str
    why: str = ""
    """Of a task that is not done: its error, or which task it waited for."""
    run_id: str | None = None
    benchmark: str = ""
    headline: str = ""
    score: float | None = None
    scores: dict[str, float] = field(default_factory=dict)


def report_task(tasks: list[Task], folder: Path, uri: str | None, cluster: str) -> Task:
    """The task that reports on all of these."""
    config = ReportConfig(folder=str(folder), output=str(folder), tracking_uri=uri)
    digest = digest_of([task.digest for task in tasks])
    return Task(KEY, KEY, "report", digest, str(folder), config.resolved(), cluster=cluster)


def is_reported(task: Task) -> bool:
    """Whether the report is there, MLflow has it, and nothing was missing then."""
    found = read_json(Path(task.output) / REPORT) or {}
    return found.get("digest") == task.digest and found.get("complete") is True


def run(config: ReportConfig, stop: Stop, provenance: Provenance) -> Result:  # noqa: ARG001 (the contract)
    """Look at every task's output and write `report.json`, `report.txt` and `leaderboard.html`."""
    from hvc.pretrain.tracking.tracking_uri import default_uri
    from hvc.slurm.pipeline_run import close_run

    folder = Path(config.folder)
    state = PipelineState.read(folder)
    tasks = [task for task in state.tasks if task.stage != "report"]
    rows = rows_of(state, tasks, ask_controller().jobs)
    uri = config.tracking_uri or default_uri()
    text = "\n".join(lines(rows))
    write_atomic(folder / TABLE, text + "\n")
    failed = {row.key: row.why for row in rows if row.state != "done"}
    told = close_run(uri, str(state.run_id), best(rows), failed, f"```\n{text}\n```") and _page(
        folder / PAGE, uri, {row.run_id for row in rows if row.run_id}
    )
    values = {
        "digest": digest_of([task.digest for task in tasks]),
        "complete": not failed and told,
        "failed": failed,
        "run_id": state.run_id,
        "tasks": [asdict(row) for row in rows],
    }
    write_atomic(folder / REPORT, json.dumps(values, indent=1) + "\n")
    return Result(Outcome.DONE, {"report": str(folder / TABLE), "failed": failed, "run_id": state.run_id})


def rows_of(state: PipelineState, tasks: list[Task], known: dict[str, KnownJob]) -> list[Row]:
    """One row per task, in the pipeline's order."""
    done = done_of(tasks)
    return [_row(state, task, tasks, done, known) for task in tasks]


def _row(
    state: PipelineState, task: Task, tasks: list[Task], done: set[str], known: dict[str, KnownJob]
) -> Row:
    common = (task.key, task.stage)
    if task.key not in done:
        cause = cause_of(task, tasks, done)
        if cause is not None:
            why = f"{cause.key} is not done"
            return Row(*common, "not begun", task.output, why)
        return Row(*common, "failed", task.output, why_failed(state, task, known), run_of_task(task))
    found = scores_of(task) if task.stage == "evaluate" else {}
    headline, scores = found.get("headline"), found.get("scores")
    measured = scores if isinstance(scores, dict) and headline else {}
    return Row(
        *common,
        "done",
        task.output,
        run_id=run_of_task(task),
        benchmark=str(found.get("benchmark", "")),
        headline=str(headline or ""),
        score=measured.get(headline),
        scores=measured,
    )


def why_failed(state: PipelineState, task: Task, known: dict[str, KnownJob]) -> str:
    """In one line: the error of its last attempt and the job, as far as they are known."""
    last = state.last_of(task)
    if last is None:
        return "was not submitted"
    sent, job_id = last
    index = sent.digests.index(task.digest) if len(sent.keys) > 1 else None
    attempt = newest_attempt(Path(sent.folder), index)
    if attempt is not None and attempt.reason:
        return f"job {job_id}: {attempt.reason}"
    if task.stage == "evaluate" and scores_of(task):
        return f"job {job_id}: MLflow did not take the scores; submit the pipeline again to send them"
    slurm = known.get(job_id)
    return f"job {job_id}: " + (f"Slurm says {slurm.state}" if slurm else f"see {sent.folder}")


def best(rows: list[Row]) -> dict[str, float]:
    """The highest finite headline on each benchmark, as metrics of the run that holds the others."""
    found: dict[str, float] = {}
    for row in rows:
        if row.score is not None and math.isfinite(row.score):
            name = f"best/{row.benchmark}/{row.headline}"
            found[name] = max(row.score, found.get(name, -math.inf))
    return found


def lines(rows: list[Row]) -> list[str]:
    """A table: evaluations with the best first, then the rest, then what is not done and why."""

    def place(row: Row) -> tuple[bool, bool, str, float]:
        return row.state != "done", row.score is None, row.benchmark, -(row.score or 0.0)

    width = max((len(row.key) for row in rows), default=0)
    return [_line(row, width) for row in sorted(rows, key=place)]


def _line(row: Row, width: int) -> str:
    if row.state != "done":
        return f"{row.key:{width}}  {row.state}: {row.why}"
    value = f"{row.score:6.2f} {row.headline}" if row.score is not None else row.output
    return f"{row.key:{width}}  {row.state}  {value}" + (f"  run {row.run_id[:8]}" if row.run_id else "")


def _page(path: Path, uri: str, run_ids: set[str]) -> bool:
    """The leaderboard of these runs as a page; False, and a warning, where MLflow does not answer."""
    from hvc.evaluation.leaderboard.board import board_of
    from hvc.evaluation.leaderboard.page import page
    from hvc.evaluation.leaderboard.runs import collect, pictures_from
    from hvc.pretrain.tracking.mlflow_client import connect

    try:
        client = connect(uri)
        measured, unscored = [], []
        for name in _experiments(client, uri, run_ids):
            here = collect(client, uri, name)
            measured += here[0]
            unscored += here[1]
        board = board_of(
            [one for one in measured if one.entry.run_id in run_ids],
            [one for one in unscored if one.run_id in run_ids],
            published=False,
        )
        write_atomic(path, page(board, public(uri), pictures_from(client, uri), time.time()))
    except HvcError as error:
        _log.warning("no leaderboard: %s", error)
        return False
    return True


def _experiments(client: Any, uri: str, run_ids: set[str]) -> list[str]:
    from hvc.pretrain.tracking.mlflow_client import answering
    from hvc.slurm.pipeline_run import ADVICE

    with answering(uri, ADVICE):
        ids = {client.get_run(run_id).info.experiment_id for run_id in run_ids}
        return sorted(client.get_experiment(one).name for one in ids)
