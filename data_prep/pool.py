"""Tasks spread over processes, with an end that can be asked for between tasks."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Self, TypeVar

from hvc.base.errors import HvcError
from hvc.base.stage import Stop
from hvc.data_prep.worker import COMMAND

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def default_workers() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spare_core(workers: "Workers") -> bool:
    """Whether cores are left for a second thread in every worker process."""
    return 2 * workers.count <= default_workers()


def in_processes(
    function: Callable[[Task], Answer], tasks: Iterable[Task], workers: int, stop: Stop
) -> Generator[Answer, None, None]:
    """`Workers.run` with processes of its own."""
    with Workers(workers) as processes, closing(processes.run(function, tasks, stop)) as answers:
        yield from answers


class Workers:
    """At most `count` processes, started when they are needed; none outlives this one."""

    def __init__(self, count: int, load: Sequence[str] = ()) -> None:
        """`load` names modules that a process imports as soon as it begins."""
        self.count, self._load = count, load
        self._idle: list[_Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._idle:
            process.end()
        self._idle = []

    def warm_up(self, count: int) -> None:
        """Start so many processes now, if that is allowed: it takes a moment until they are ready."""
        while len(self._idle) < min(count, self.count):
            self._idle.append(_Process(self._load))

    def run(
        self, function: Callable[[Task], Answer], tasks: Iterable[Task], stop: Stop
    ) -> Generator[Answer, None, None]:
        """Answers of `function(task)`, as they come.

        Tasks are taken from the iterable as processes become free, and none while nobody takes the
        answers. Once `stop()` says so no further task begins, the running ones are finished, and the
        answers end early. A task's exception is raised here; HvcError when a process died.
        """
        busy: list[_Process] = []
        try:
            for task in tasks:
                if stop():
                    break
                process = self._idle.pop() if self._idle else _Process(self._load)
                busy.append(process)
                process.send(function, task)
                if len(busy) == self.count:
                    yield from self._answers(busy)
            while busy:
                yield from self._answers(busy)
        except _DiedError:
            if stop():  # the signal that asks us to stop went to the workers, too
                return
            raise HvcError(
                "a worker process died, perhaps for lack of memory; run the same command again to go "
                "on, with fewer `workers` if it recurs"
            ) from None
        finally:
            for process in busy:
                process.end()

    def _answers(self, busy: "list[_Process]") -> Iterator[Any]:
        """Of those that have one; waits for the first."""
        ready = wait([process.answers.fileno() for process in busy])
        for process in [process for process in busy if process.answers.fileno() in ready]:
            answer = process.receive()
            busy.remove(process)
            self._idle.append(process)
            yield answer


class _DiedError(Exception):
    """A worker process is gone."""


class _Process:
    """One worker process and the two pipes to it."""

    def __init__(self, load: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, ",".join(load), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the parent
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks, self.answers = self._process.stdin, self._process.stdout

    def send(self, function: Callable[[Any], Any], task: Any) -> None:
        data = pickle.dumps((function, task))
        try:
            self._tasks.write(len(data).to_bytes(8, "little") + data)
            self._tasks.flush()
        except BrokenPipeError:
            raise _DiedError from None

    def receive(self) -> Any:
        try:
            good, value = pickle.load(self.answers)  # noqa: S301 (it comes from our own child process)
        except (EOFError, pickle.UnpicklingError):
            raise _DiedError from None
        if good:
            return value
        error, trace = value
        if not isinstance(error, HvcError):
            error.add_note(f"in a worker process:\n{trace}")
        raise error

    def end(self) -> None:
        """At once, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self.answers.close()
        with suppress(BrokenPipeError):  # what was not sent is not needed any more
            self._tasks.close()
