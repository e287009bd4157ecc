"""What a pipeline has to do, and what has to wait for what. Pure functions of plain data.

A task is one config of one stage. Its digest says what decides its result: the config's values that do,
and the digest of what it takes in, which for the output of another task is that task's digest. Its output
is named by the digest, so what is there was made from just this, and a changed input means another output.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

Stage = Literal["shard", "train", "evaluate", "report"]
Kind = Literal["afterok", "aftercorr", "afterany"]
SHOWN = 12
"""Digits of a digest in names of outputs."""


@dataclass(frozen=True)
class Task:
    """One config to run."""

    key: str
    """Its name in this pipeline: `train`, `train/learning_rate=0.1`, `evaluate-davis2017`."""
    step: str
    """Tasks of the same step are queued together, as one array: `train`, `evaluate-davis2017`."""
    stage: Stage
    digest: str
    output: str
    config: dict[str, Any] = field(default_factory=dict, compare=False)
    need: str | None = None
    """Key of the task whose output it takes."""
    parts: int = 1
    """Array tasks that share its work before a last job joins it."""
    cluster: str = ""
    """Cluster file."""


@dataclass(frozen=True)
class Dependency:
    """What a batch waits for: a job that is queued already, or an earlier batch of the same plan."""

    kind: Kind
    job: str = ""
    """Slurm's id; empty for a batch."""
    batch: int = -1
    """Number of the batch; -1 for a job."""
    index: int | None = None
    """Which task of the batch; None is all of it (`aftercorr`: each its own)."""


@dataclass(frozen=True)
class Batch:
    """Tasks that are submitted together: one job, or an array with a job per task (or part)."""

    tasks: tuple[Task, ...]
    after: tuple[Dependency, ...] = ()
    role: Literal["whole", "parts", "join"] = "whole"
    """`parts`: an array of the parts of the one task, which `join` finishes."""


def digest_of(*values: Any) -> str:
    """sha256 (hex) over plain data."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def batches(tasks: Sequence[Task], done: Iterable[str], live: Mapping[str, str]) -> list[Batch]:
    """What to submit, in order: every task that is neither done nor live, once, behind what it needs.

    Args:
        tasks: steps one after the other; a task stands behind the one that it needs.
        done: keys of tasks whose output is there.
        live: Slurm's ids of tasks that are queued or running, by key.
    """
    finished, made = set(done), list[Batch]()
    where: dict[str, tuple[int, int | None]] = {}
    """Batch, and index in it, that finishes a task."""
    for _, step in groupby(tasks, key=lambda task: task.step):
        waiting = [task for task in step if task.key not in finished and task.key not in live]
        for group, after in _grouped(waiting, where, live, made):
            if group[0].parts > 1:
                for task in group:
                    made.append(Batch((task,), after, "parts"))
                    joined = (*after, Dependency("afterany", batch=len(made) - 1))
                    made.append(Batch((task,), joined, "join"))
                    where[task.key] = (len(made) - 1, None)
                continue
            made.append(Batch(tuple(group), after))
            alone = len(group) == 1
            where |= {task.key: (len(made) - 1, None if alone else n) for n, task in enumerate(group)}
    return made


def _grouped(
    tasks: list[Task],
    where: Mapping[str, tuple[int, int | None]],
    live: Mapping[str, str],
    made: Sequence[Batch],
) -> list[tuple[list[Task], tuple[Dependency, ...]]]:
    """Tasks of a step that can be one array, with what the array waits for."""
    free = [task for task in tasks if task.need not in where and task.need not in live]
    bound = [task for task in tasks if task not in free]
    groups: list[tuple[list[Task], tuple[Dependency, ...]]] = [(some, ()) for some in _together(free)]
    needs = [task.need for task in bound]
    for number, batch in enumerate(made):
        matching = len(needs) > 1 and needs == [task.key for task in batch.tasks]
        if matching and batch.role == "whole" and bound[0].parts == 1:
            return [*groups, (bound, (Dependency("aftercorr", batch=number),))]
    same: dict[Dependency, list[Task]] = {}
    for task in bound:
        same.setdefault(_after(task, where, live), []).append(task)
    for after, waiting in same.items():
        groups += [(some, (after,)) for some in _together(waiting)]
    return groups


def _together(tasks: list[Task]) -> list[list[Task]]:
    """Tasks that wait for the same, as one array where none is an array itself."""
    if tasks and tasks[0].parts == 1:
        return [tasks]
    return [[task] for task in tasks]


def _after(task: Task, where: Mapping[str, tuple[int, int | None]], live: Mapping[str, str]) -> Dependency:
    assert task.need is not None
    if task.need in live:
        return Dependency("afterok", job=live[task.need])
    batch, index = where[task.need]
    return Dependency("afterok", batch=batch, index=index)


def dependency_text(after: Iterable[Dependency], submitted: Mapping[int, str]) -> str | None:
    """For `sbatch --dependency`: all of these; None where there is nothing to wait for.

    Args:
        submitted: Slurm's ids of the batches so far, by number.
    """
    words = []
    for one in after:
        job = one.job or submitted[one.batch]
        words.append(f"{one.kind}:{job}" + ("" if one.index is None else f"_{one.index}"))
    return ",".join(words) or None


def cause_of(task: Task, tasks: Sequence[Task], done: Iterable[str]) -> Task | None:
    """The task that has to be done for this one to begin and is not; the first one of the chain."""
    by_key, finished, cause = {one.key: one for one in tasks}, set(done), None
    need = task.need
    while need is not None and need not in finished:
        cause = by_key[need]
        need = cause.need
    return cause
