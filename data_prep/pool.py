"""Tasks spread over processes, with an end that can be asked for between tasks."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import TypeVar

from hvc.base.errors import HvcError
from hvc.base.stage import Stop

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def default_workers() -> int:
    """The number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    function: Callable[[Task], Answer], tasks: Sequence[Task], workers: int, stop: Stop
) -> Generator[Answer, None, None]:
    """Answers of `function(task)`, as they come, from `workers` processes.

    Once `stop()` says so no further task begins, the running ones are finished, and the answers end
    early. A task's exception is raised here; HvcError when a process died. No process outlives this
    one, however it ends.
    """
    running: set[Future[Answer]] = set()
    with _executor(max(1, min(workers, len(tasks)))) as executor:
        try:
            for task in tasks:
                if len(running) == workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                if stop():
                    break
                running.add(executor.submit(function, task))
            yield from (future.result() for future in as_completed(running))
        except BrokenProcessPool:
            if stop():  # the signal that asks us to stop went to the workers, too
                return
            raise HvcError(
                "a worker process died, perhaps for lack of memory; run the same command again to go "
                "on, with fewer `workers` if it recurs"
            ) from None


def _executor(workers: int) -> ProcessPoolExecutor:
    # Plain fork would copy the locks of running threads. The fork server loads the slow imports
    # once for all workers, but keeps the environment of its own start: each worker gets today's.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["webdataset", "boto3", "PIL.Image"])
    return ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(dict(os.environ),))


def _begin_worker(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for([parent.sentinel])
    os._exit(1)
