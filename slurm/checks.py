"""What a check of the machine is, and how many of them run at once within a bounded time."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis; whatever is not ok says in one sentence what to do."""

    name: str
    status: Status
    found: str
    advice: str = ""

    def __post_init__(self) -> None:
        assert self.advice or self.status == "ok", f"{self.name}: {self.status} without advice"


Probe = Callable[[], Iterator[Check]]
"""Looks at one thing and yields what it finds as soon as it knows."""

_Answer = tuple[str, Check | Exception | None]  # None: this probe is through


def run_probes(probes: dict[str, Probe], seconds: float) -> list[Check]:
    """All checks of all probes, in the order of `probes`, after at most `seconds`.

    A probe that hangs (dead network file system, silent server) or breaks costs one failed check
    in its name; what it found before is kept.
    """
    answers: queue.Queue[_Answer] = queue.Queue()
    for name, probe in probes.items():  # daemons, so that one that hangs cannot keep the process alive
        threading.Thread(target=_run, args=(name, probe, answers), daemon=True).start()
    found: dict[str, list[Check]] = {name: [] for name in probes}
    running, end = set(probes), time.monotonic() + seconds
    while running:
        try:
            name, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(answer, Check):
            found[name].append(answer)
            continue
        running.discard(name)
        if answer is not None:
            found[name].append(_broken(name, answer))
    for name in running:
        found[name].append(_silent(name, seconds))
    return [check for checks in found.values() for check in checks]


def _run(name: str, probe: Probe, answers: queue.Queue[_Answer]) -> None:
    try:
        for check in probe():
            answers.put((name, check))
    except Exception as error:  # noqa: BLE001 - one broken check must not hide the others
        answers.put((name, error))
    else:
        answers.put((name, None))


def _broken(name: str, error: Exception) -> Check:
    # the type only: nobody has read this message, and it could hold a password
    return Check(
        name, "fail", f"the check itself broke ({type(error).__name__})", "Report this as a defect."
    )


def _silent(name: str, seconds: float) -> Check:
    advice = "Something below it hangs: look at its network address or file system, then try again."
    return Check(name, "fail", f"no answer within {seconds:g} s", advice)
