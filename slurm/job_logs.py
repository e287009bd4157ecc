"""The logs of a submission: per attempt and rank, the rank that failed first before all others.

logs/attempt-N/rank-R.log               of a job; of an array's task logs/task-T/attempt-N/rank-R.log
logs/slurm-JOBID.out                    modules, srun, Python; of an array's task logs/slurm-JOBID_T.out
failures/attempt-N-rank-R.txt           traceback of a rank that failed
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hvc.base.errors import UsageError
from hvc.slurm.attempts import Records
from hvc.slurm.job_choice import Chosen

LINES = 60
"""So many of the last lines are shown."""
_TAIL_BYTES = 1 << 18
_TRACEBACK = "Traceback (most recent call last):"
_RANK = re.compile(r"rank-(\d+)\.log")


@dataclass(frozen=True)
class Excerpt:
    """The end of one file, with a headline."""

    title: str
    path: Path
    text: str


def excerpts(chosen: Chosen, rank: int | None, attempt: int | None, lines: int = LINES) -> list[Excerpt]:
    """What is to read first: the tracebacks of failing ranks, then the end of a rank's log.

    Args:
        chosen: the job; of an array without a task, the first task that failed, else the first.
        rank: whose log; None: of the rank that failed first, else 0.
        attempt: from 1; None: the newest that left a log.
        lines: so many of the log's last ones.

    Raises UsageError where there is no such log, and says which there are.
    """
    task = task_of(chosen)
    records = Records(chosen.folder, task)
    number = attempt if attempt is not None else (records.numbers() or [0])[-1]
    failed = records.failures(number)
    found = []
    for one in [one for one in failed if rank == one.rank] if rank is not None else failed[:1]:
        others = [str(other.rank) for other in failed if other.rank != one.rank]
        also = f"; after it rank {', '.join(others)}" if others and one is failed[0] else ""
        title = f"rank {one.rank} failed in attempt {number}{also}"
        found.append(Excerpt(title, one.path, tail(one.path, 4 * lines).removeprefix(f"# {one.kind}\n")))
    wanted = rank if rank is not None else failed[0].rank if failed else 0
    log = _log_of(chosen, task, number, wanted, asked=rank is not None or attempt is not None)
    record = records.read(number)
    if log is None or (record and record.outcome == "failed" and not failed):
        found += _early(chosen, task, lines)  # a rank that was killed says nothing, but srun does
    if log is not None:
        shown = [one for one in failed if one.rank == wanted]
        text = tail(log, lines)
        if shown:  # cut out of all that is there: the traceback alone may be longer than what is shown
            whole = _without_traceback(tail(log, _TAIL_BYTES), shown[0].path)
            text = "".join(whole.splitlines(keepends=True)[-lines:])
        found.append(Excerpt(f"rank {wanted} in attempt {number}", log, text))
    return found or [_nothing(chosen)]


def _without_traceback(log: str, failure: Path) -> str:
    """A rank's log without the traceback that its failure's file has; submitit prints it there, too."""
    end = (failure.read_text(encoding="utf-8", errors="replace").rstrip().splitlines() or [""])[-1]
    kept: list[str] = []
    traceback: list[str] = []
    for line in log.splitlines(keepends=True):
        if not traceback and not line.startswith(_TRACEBACK):
            kept.append(line)
            continue
        traceback.append(line)
        if line.rstrip() == end:
            kept.append("(the traceback above)\n")
            traceback = []
    return "".join(kept + traceback)


def _nothing(chosen: Chosen) -> Excerpt:
    folder = chosen.folder / "logs"
    return Excerpt(f"job {chosen.job_id} has written nothing yet; `hvc jobs` says why it waits", folder, "")


def task_of(chosen: Chosen) -> int | None:
    """The task whose logs are meant: of a whole array the first that failed, else the first."""
    if chosen.task is not None or chosen.join or chosen.submission.array is None:
        return chosen.task
    failing = (path.parent.name for path in (chosen.folder / "failures").glob("task-*/*.txt"))
    return min((int(name.removeprefix("task-")) for name in failing), default=0)


def _log_of(chosen: Chosen, task: int | None, attempt: int, rank: int, *, asked: bool) -> Path | None:
    records = Records(chosen.folder, task)
    path = records.log(attempt, rank)
    if path.is_file():
        return path
    if not asked:
        return None
    known = records.numbers()
    if attempt not in known:
        raise UsageError(
            f"job {chosen.job_id} has no log of attempt {attempt}; there are: {_list(known) or 'none yet'}"
        )
    ranks = sorted(int(match[1]) for file in path.parent.iterdir() if (match := _RANK.fullmatch(file.name)))
    raise UsageError(
        f"attempt {attempt} of job {chosen.job_id} has no log of rank {rank}; there are {_list(ranks)}"
    )


def _list(numbers: list[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 2 else ", ".join(map(str, numbers))


def _early(chosen: Chosen, task: int | None, lines: int) -> list[Excerpt]:
    """What the batch script and srun wrote last: modules that are not there, a rank that was killed."""
    found = list((chosen.folder / "logs").glob("slurm-*.out" if task is None else f"slurm-*_{task}.out"))
    own = [path for path in found if path.stem == f"slurm-{chosen.job_id}"]
    last = max(own or found, key=lambda path: path.stat().st_mtime_ns, default=None)
    return [Excerpt("the batch script and srun", last, tail(last, lines))] if last else []


def tail(path: Path, lines: int) -> str:
    """The last lines of a file, of at most 256 KiB."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        data = file.read()
    kept = data.decode("utf-8", errors="replace").splitlines(keepends=True)
    return "".join(kept[-lines:])


@dataclass
class Follower:
    """What is added to the logs of a job, over its attempts."""

    chosen: Chosen
    rank: int | None = None
    ended: Callable[[], bool] = field(default=lambda: False)
    """Asked now and then: whether the job has ended for good."""
    _places: dict[Path, int] = field(default_factory=dict)

    def pieces(self, pause: float = 1.0, asked_every: float = 5.0) -> Iterator[tuple[Path, str]]:
        """(file, what was added to it), from the ends that `excerpts` has shown, until the job ends."""
        for path in self._files():
            self._places[path] = path.stat().st_size
        asked = time.monotonic()
        while True:
            yield from self._new()
            if time.monotonic() - asked >= asked_every:
                if self.ended():
                    yield from self._new()
                    return
                asked = time.monotonic()
            time.sleep(pause)

    def _new(self) -> Iterator[tuple[Path, str]]:
        for path in self._files():
            start = self._places.get(path, 0)
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                self._places[path] = start + len(whole)
                yield path, whole.decode("utf-8", errors="replace")

    def _files(self) -> list[Path]:
        task = task_of(self.chosen)
        records = Records(self.chosen.folder, task)
        numbers = records.numbers()
        found = [records.log(number, self.rank or 0) for number in numbers]
        found += [one.path for number in numbers[-1:] for one in records.failures(number)]
        return [path for path in found if path.is_file()]
