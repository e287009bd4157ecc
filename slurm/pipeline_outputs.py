"""Whether a task is done, by its output alone: it is named by the task's digest, so what is there is it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hvc.base.errors import HvcError
from hvc.base.files import read_json
from hvc.base.storage import open_store
from hvc.data_prep.manifest import MANIFEST_NAME
from hvc.pretrain.tracking.journal import JOURNAL
from hvc.pretrain.tracking.journal_state import JournalState
from hvc.pretrain.tracking.run_note import RunNote
from hvc.slurm.pipeline_plan import Task

SCORES = "scores.json"
"""In the output folder of an evaluation: what came out."""


def done_of(tasks: Iterable[Task]) -> set[str]:
    """Keys of the tasks whose output is there, whole."""
    return {task.key for task in tasks if is_done(task)}


def is_done(task: Task) -> bool:
    """Whether a task's output is there; HvcError where that cannot be found out."""
    if task.stage == "shard":
        return open_store(task.output).exists(MANIFEST_NAME)
    if task.stage == "train":
        return is_trained(task.output)
    return scores_of(task).get("at_mlflow") is True


def is_trained(output: str) -> bool:
    """Whether the run in an output folder has finished, and its newest checkpoint is there."""
    state = JournalState.of(Path(output) / JOURNAL)
    if state.status != "FINISHED" or state.newest is None:
        return False
    from hvc.pretrain.checkpoints.marker import (
        COMPLETE,  # with torch, which a look at nothing can do without
    )

    try:
        return open_store(state.newest["address"]).exists(COMPLETE)
    except HvcError:
        return False


def scores_of(task: Task) -> dict[str, Any]:
    """What an evaluation left; empty where it is not done."""
    found = read_json(Path(task.output) / SCORES) or {}
    return found if found.get("digest") == task.digest else {}


def run_of_task(task: Task) -> str | None:
    """MLflow's id of a task's run; None where there is none, or not yet."""
    if task.stage == "train":
        note = RunNote.read(Path(task.output))
        return note.run_id if note else None
    run_id = scores_of(task).get("run_id")
    return str(run_id) if run_id else None
