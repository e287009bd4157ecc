"""Loader processes: how they start, what ends them, and what is said when one is gone.

They are forked from a server process that has imported what they need and nothing else. So they hold no
file, lock, thread or GPU of the training process, and start without importing anything.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader

from hvc.base.errors import HvcError

CONTEXT = "forkserver"
SILENCE_SECONDS = 300.0
"""A loader that gives nothing for so long hangs; S3 is waited for less long."""
_GRACE_SECONDS = 15
_GOES_ON = "Training goes on from the last checkpoint when the same command runs again"
T = TypeVar("T")


def start_server() -> None:
    """Start the process that loader processes are forked from, now, while something else is done."""
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2}
    multiprocessing.set_forkserver_preload(["hvc.pretrain.stream"])
    # What is blocked here stays blocked there: a signal to the whole job must not end the server. None
    # is lost, as this process receives it when it blocks no longer.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_worker(_worker: int) -> None:
    """In a new loader process: end with the training process, and not before it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    # A signal to the whole job means that training stops after this step, which needs its batch yet.
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_SECONDS) and None)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2})
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


Receive = Callable[[int], tuple[list[Any], float]]
"""Take so many items; returns them and the seconds that took."""


@contextmanager
def watched(loader: DataLoader[Any], who: str) -> Iterator[Receive]:
    """Take items from a loader; HvcError when one of its processes dies or gives nothing for minutes."""
    start_server()
    others = set(multiprocessing.active_children())
    items = iter(loader)
    children = [child for child in multiprocessing.active_children() if child not in others]
    hung = threading.Event()

    def end_children() -> None:
        hung.set()
        for child in children:
            child.kill()  # the loader notices, and so does whoever waits for it

    def receive(count: int) -> tuple[list[Any], float]:
        start = time.monotonic()
        watch = threading.Timer(SILENCE_SECONDS, end_children) if children else None
        if watch:
            watch.daemon = True
            watch.start()
        try:
            return [next(items) for _ in range(count)], time.monotonic() - start
        except RuntimeError as error:
            raise _explained(error, children, who, hung.is_set()) from None
        finally:
            if watch:
                watch.cancel()

    yield receive


def _explained(error: RuntimeError, children: list[Any], who: str, hung: bool) -> Exception:
    if hung:
        return HvcError(
            f"{who}: a loader process gave nothing for {SILENCE_SECONDS:.0f} s and was ended; is the "
            f"storage away, or the node overloaded? {_GOES_ON}"
        )
    if not any(child.exitcode for child in children):
        return error
    codes = {child.exitcode for child in children if child.exitcode}
    return HvcError(f"{who}: {_cause(codes)}. {_GOES_ON}")


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
    text = ", ".join(str(code) for code in sorted(codes))
    return f"a loader process died (exit code {text}); its own words are above"
