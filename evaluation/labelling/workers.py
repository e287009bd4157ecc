"""Sequences spread over processes: one that dies takes its sequence with it and no other."""

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from hvc.base.errors import HvcError
from hvc.base.stage import Stop
from hvc.evaluation.labelling.one_sequence import Task
from hvc.evaluation.labelling.worker import COMMAND, Done, Event, Failed, Say, Setting, Unfit, labeller

_POLL_SECONDS = 0.2


def run_here(setting: Setting, tasks: Iterable[Task], stop: Stop, hear: Say) -> None:
    """Do tasks in this process, in their order; ends early once `stop()` says so."""
    do = labeller(setting)
    for task in tasks:
        if stop():
            return
        do(task, stop, hear)


def run_in_processes(
    setting: Setting, tasks: Iterable[Task], devices: Sequence[str], stop: Stop, hear: Say
) -> None:
    """Do tasks in as many processes as there are `devices` (which may repeat), in their order.

    `hear` is called in this thread with what happens. Once `stop()` says so all processes are ended at
    once, whatever they are doing: a sequence without its record is done anew.

    Raises HvcError when a process cannot begin.
    """
    waiting = deque(tasks)
    events: _Events = queue.Queue()
    workers: list[_Worker] = []
    try:
        for device in devices:
            if waiting:
                worker = _Worker(replace(setting, device=device, method=setting.method.to_send()), events)
                workers.append(worker)
                worker.begin(waiting.popleft())
        while any(worker.task for worker in workers) and not stop():
            with suppress(queue.Empty):
                _on_event(workers, waiting, hear, *events.get(timeout=_POLL_SECONDS))
    finally:
        for worker in workers:
            worker.end()


def _on_event(
    workers: list["_Worker"], waiting: "deque[Task]", hear: Say, worker: "_Worker", event: Event | None
) -> None:
    """Pass an event on, and give whoever is free something to do. None: the process is gone."""
    if isinstance(event, Unfit):
        raise event.error
    if event is None:
        if worker.task is None:
            return
        name, worker.task = worker.task.sequence.name, None
        hear(Failed(name, HvcError(f"sequence {name}: {worker.last_words()}")))
        if waiting:
            fresh = worker.successor()
            workers[workers.index(worker)] = fresh
            fresh.begin(waiting.popleft())
        return
    hear(event)
    if isinstance(event, (Done, Failed)):
        worker.task = None
        if waiting:
            worker.begin(waiting.popleft())


class _Worker:
    """One process, the pipes to it, and a thread that listens."""

    def __init__(self, setting: Setting, events: "_Events") -> None:
        self._setting, self._events = setting, events
        self.task: Task | None = None
        environment = dict(os.environ)
        if setting.threads:
            environment["OMP_NUM_THREADS"] = str(setting.threads)
        self._process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            process_group=0,  # Ctrl-C is for the parent
        )
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(setting)

    def begin(self, task: Task) -> None:
        """Have it do a task."""
        self.task = task
        self._send(task)

    def successor(self) -> "_Worker":
        """Another process in its place."""
        return _Worker(self._setting, self._events)

    def last_words(self) -> str:
        """Why it is gone."""
        code = self._process.wait()
        if code >= 0:
            return f"its process ended with code {code}; its last words stand above"
        name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
        cause = (
            "out of memory? see dmesg, and take fewer workers" if code == -signal.SIGKILL else "see above"
        )
        return f"its process was ended by {name} ({cause}); the same command goes on from what is done"

    def end(self) -> None:
        """At once."""
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]

    def _send(self, thing: object) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(BrokenPipeError):  # that it is gone is heard from the other pipe
            pipe.write(pickle.dumps(thing))
            pipe.flush()

    def _listen(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            while True:
                try:
                    event: Event = pickle.load(pipe)  # noqa: S301 - it comes from our own child process
                except (EOFError, pickle.UnpicklingError):
                    break
                self._events.put((self, event))
        self._events.put((self, None))


_Events = queue.Queue[tuple[_Worker, Event | None]]
