"""Loader processes: how they start, what ends them, and what is said when one is gone.

They are forked from a server process that has imported what they need and nothing else. So they hold no
file, lock, thread or GPU of the training process, and start without importing anything.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection, forkserver
from typing import Any, Self

import torch
from torch.utils.data import DataLoader

from hvc.base.errors import HvcError

CONTEXT = "forkserver"
SILENCE_SECONDS = 300.0
"""A loader that gives nothing for so long hangs; S3 is waited for less long."""
_GRACE_SECONDS = 15
_REPORT_SECONDS = 2.0
"""The news of a process's death may come a little after its consequences."""
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2}
_GOES_ON = "Training goes on from the last checkpoint when the same command runs again"


def start_server() -> None:
    """Start the process that loader processes are forked from, now, while something else is done."""
    multiprocessing.set_forkserver_preload(["hvc.pretrain.data.stream"])
    # What is blocked here stays blocked there: a signal to the whole job must not end the server. None
    # is lost, as this process receives it when it blocks no longer.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker(_worker: int, environment: dict[str, str]) -> None:
    """In a new loader process: end with the training process, and not before it."""
    os.environ.clear()
    os.environ.update(environment)  # the server's is as old as the server
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    # A signal to the whole job means that training stops after this step, which needs its batch yet.
    signal.signal(signal.SIGTERM, _end_soon)
    signal.signal(signal.SIGALRM, _end_now)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    torch.set_num_threads(1)


def _end_soon(_signal: int, _frame: object) -> None:
    signal.alarm(_GRACE_SECONDS)


def _end_now(_signal: int, _frame: object) -> None:
    os._exit(0)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


class Watched:
    """Items of a loader; HvcError when one of its processes dies or gives nothing for minutes."""

    def __init__(self, loader: DataLoader[Any], who: str) -> None:
        self._loader, self._who = loader, who
        self._items: Iterator[Any] = iter(())
        self._children: list[Any] = []
        self._hung = threading.Event()

    def __enter__(self) -> Self:
        if self._loader.num_workers:
            start_server()
        others = set(multiprocessing.active_children())
        self._items = iter(self._loader)
        self._children = [child for child in multiprocessing.active_children() if child not in others]
        return self

    def __exit__(self, *_: object) -> None:
        self._items = iter(())  # without its iterator a loader ends its processes

    def receive(self, count: int) -> tuple[list[Any], float]:
        """Take so many items; returns them and the seconds that this took."""
        start = time.monotonic()
        watch = threading.Timer(SILENCE_SECONDS, self._end_children)
        watch.daemon = True
        if self._children:
            watch.start()
        try:
            return [next(self._items) for _ in range(count)], time.monotonic() - start
        except (RuntimeError, OSError, EOFError) as error:  # tensors come through a socket of the process
            raise self._explained(error) from None
        finally:
            watch.cancel()

    def _end_children(self) -> None:
        self._hung.set()
        for child in self._children:
            child.kill()  # the loader notices, and so does whoever waits for it

    def _explained(self, error: Exception) -> Exception:
        if self._hung.is_set():
            return HvcError(
                f"{self._who}: a loader process gave nothing for {SILENCE_SECONDS:.0f} s and was ended; is "
                f"the storage away, or the node overloaded? {_GOES_ON}"
            )
        if not self._children:
            return error
        connection.wait([child.sentinel for child in self._children], _REPORT_SECONDS)
        codes = {child.exitcode for child in self._children if child.exitcode is not None}
        return HvcError(f"{self._who}: {_cause(codes)}. {_GOES_ON}") if codes else error


def _cause(codes: set[int]) -> str:
    if -signal.SIGBUS in codes:
        return (
            "a loader process found no room in shared memory; make /dev/shm larger (in a container: "
            "--shm-size), or lower stream.prefetch or workers"
        )
    if -signal.SIGKILL in codes:
        return (
            "a loader process was killed, most likely because memory ran out; lower workers, "
            "stream.prefetch or stream.buffer_mb, or ask for more memory"
        )
    if codes == {0}:
        return "a loader process was told to end (SIGTERM) while training went on"
    text = ", ".join(str(code) for code in sorted(codes - {0}))
    return f"a loader process died (exit code {text}); its own words are above"
