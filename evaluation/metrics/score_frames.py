"""Frames measured on several cores, those of long videos first."""

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from hvc.data_prep.pool import in_processes
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.scorer import Scorer

_CHUNK = 24
"""Frames of a sequence that one process measures at a time."""
_THREADS = 4
"""Decoding and counting leave Python to others, so that threads do, and they start at once; more than
these would wait for each other."""
_PER_PROCESS = 200
"""Fewer frames than this are measured sooner than another process starts."""


def score_sequences(
    scorer: Scorer, sequences: list[Sequence], results: Path, workers: int
) -> dict[str, dict[str, Any]]:
    """The record of every sequence, in their order; frames are measured on so many cores."""
    chunks = plan_chunks({item.name: scorer.frames(item) for item in sequences})
    known = {item.name: item for item in sequences}
    tasks = [_Task(scorer, known[name], results, index, frames) for name, index, frames in chunks]
    total = sum(len(task.frames) for task in tasks)
    parts: dict[str, dict[int, NDArray[np.float64]]] = {name: {} for name in known}
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("frames", total=total)
        with closing(_answers(tasks, workers)) as answers:
            for answer in answers:
                parts[answer.name][answer.index] = answer.measured
                progress.advance(bar, len(answer.measured))
    return {
        item.name: scorer.record(
            item, np.concatenate([part for _, part in sorted(parts[item.name].items())])
        )
        for item in sequences
    }


def plan_chunks(frames: Mapping[str, list[int]]) -> list[tuple[str, int, list[int]]]:
    """(sequence, number of the chunk in it, its frames): chunks of the longest sequences first."""
    chunks = [
        (name, number, indices[start : start + _CHUNK])
        for name, indices in sorted(frames.items(), key=lambda item: (-len(item[1]), item[0]))
        for number, start in enumerate(range(0, len(indices), _CHUNK))
    ]
    return sorted(chunks, key=lambda chunk: -len(chunk[2]))


@dataclass(frozen=True)
class _Task:
    scorer: Scorer
    sequence: Sequence
    results: Path
    index: int
    frames: list[int]


@dataclass(frozen=True)
class _Answer:
    name: str
    index: int
    measured: NDArray[np.float64]


def _measure(task: _Task) -> _Answer:
    measured = task.scorer.measure(task.sequence, task.results, task.frames)
    return _Answer(task.sequence.name, task.index, measured)


def _answers(tasks: list[_Task], workers: int) -> Generator[_Answer, None, None]:
    processes = min(workers, sum(len(task.frames) for task in tasks) // _PER_PROCESS)
    if processes > _THREADS:
        return in_processes(_measure, tasks, processes, lambda: False)
    return _in_threads(tasks, min(workers, _THREADS))


def _in_threads(tasks: list[_Task], count: int) -> Generator[_Answer, None, None]:
    with ThreadPoolExecutor(count) as threads:
        yield from threads.map(_measure, tasks)
