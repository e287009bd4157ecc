"""What people ask of a running job, by files in the folder of its submission.

requests/stop           stop at the next safe point, save, and stay out of the queue
requests/task-T/stop    the same of one task of an array
requests/join/stop      the same of the job that joins an array's parts
requests/resize.json    {"nodes": N}: stop, save, and go on with so many nodes
"""

import json
import time
from pathlib import Path
from typing import Literal

from hvc.base.files import read_json, write_atomic
from hvc.base.stage import StopFlag

_FOLDER = "requests"
_RESIZE = "resize.json"
_REFUSED = "resize-refused.json"
_LOOK_SECONDS = 2.0
Of = int | Literal["join"] | None
"""Which jobs of a submission: a task by its number, what joins the parts, or all."""


def stop_asked(folder: Path, task: int | None) -> bool:
    """Whether the job, or this task of its array, is to stop for good."""
    own: Of = "join" if task is None else task  # a job that is no task may join those that are
    return any(_stop_file(folder, one).exists() for one in (None, own))


def ask_stop(folder: Path, of: Of) -> None:
    """Ask a job to stop for good: all of a submission, one task of its array, or what joins the parts."""
    write_atomic(_stop_file(folder, of), "")


def forget_stop(folder: Path, of: Of) -> None:
    """Take that back."""
    _stop_file(folder, of).unlink(missing_ok=True)


def ask_resize(folder: Path, nodes: int) -> None:
    """Ask a job to go on with so many nodes."""
    (folder / _FOLDER / _REFUSED).unlink(missing_ok=True)
    write_atomic(folder / _FOLDER / _RESIZE, json.dumps({"nodes": nodes}) + "\n")


def wanted_nodes(folder: Path) -> int | None:
    """The number of nodes that is asked for; None: no request, or none that makes sense."""
    return _nodes_in(folder / _FOLDER / _RESIZE)


def refused_nodes(folder: Path) -> int | None:
    """The number of nodes that was asked for last, if Slurm did not give it."""
    return _nodes_in(folder / _FOLDER / _REFUSED)


def _nodes_in(path: Path) -> int | None:
    nodes = (read_json(path) or {}).get("nodes")
    return nodes if isinstance(nodes, int) and nodes > 0 else None


def fulfil_resize(folder: Path, nodes: int) -> None:
    """Remove the request for as many nodes as there are; one for another number stays."""
    if wanted_nodes(folder) == nodes:
        (folder / _FOLDER / _RESIZE).unlink(missing_ok=True)


def refuse_resize(folder: Path) -> None:
    """Put a request aside that Slurm does not fulfil."""
    (folder / _FOLDER / _RESIZE).replace(folder / _FOLDER / _REFUSED)


def _stop_file(folder: Path, of: Of) -> Path:
    own = "" if of is None else "join" if of == "join" else f"task-{of}"
    return folder / _FOLDER / own / "stop"


class StopOrRequest:
    """A `Stop` that signals set, and on rank 0 requests too, which it looks for now and then."""

    def __init__(self, signals: StopFlag, folder: Path, task: int | None, nodes: int, looks: bool) -> None:
        """`nodes`: that there are; `looks`: whether this rank looks for files, as one is enough."""
        self._signals, self._folder, self._task = signals, folder, task
        self._nodes, self._looks = nodes, looks
        self._next_look = 0.0
        self._request = ""

    def __call__(self) -> bool:
        """True once the stage should save and leave."""
        return bool(self.reason)

    @property
    def reason(self) -> str:
        """What asks to stop; empty: nothing."""
        if self._signals.signal_name:
            return self._signals.signal_name
        if self._looks and not self._request and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._request = self._look()
        return self._request

    def _look(self) -> str:
        if stop_asked(self._folder, self._task):
            return "asked to stop for good"
        wanted = wanted_nodes(self._folder)
        if self._task is None and wanted is not None and wanted != self._nodes:
            return f"asked to go on with {wanted} nodes"
        return ""
