"""Contract 3, the stage: how every piece of long work is run, by hand or on a cluster.

`run(config, stop, provenance) -> Result`: a stage takes a validated config, asks `stop()` at safe
points whether it should end soon, can be killed at any moment and run again with the same config,
and never looks up where it runs: cluster ids and the attempt's number are handed in.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from types import FrameType
from typing import Any, Protocol, TypeVar

from hvc.base.errors import EXIT_DONE, EXIT_STOPPED

STAGE_VERSION = 1
"""Version of this contract; stored with every submitted job and refused when it differs."""

ConfigT = TypeVar("ConfigT", contravariant=True)

Stop = Callable[[], bool]
"""Answers True once the stage should save and leave."""


class Outcome(StrEnum):
    """How a stage ended; a failure is an exception."""

    DONE = "done"
    STOPPED = "stopped"  # saved; the same command goes on from here


@dataclass(frozen=True)
class Provenance:
    """Who runs the stage: free labels (for a cluster: job id, cluster, user) and the attempt, from 1."""

    attempt: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    lineage: str = ""
    """Attempts of one lineage follow one another: a later one takes the output over from an earlier that
    may still be alive somewhere. Empty: this attempt has no predecessors."""
    on_hang: Callable[[], None] | None = None
    """Called in every process of a stage that finds itself hanging, before it leaves with exit code 75."""


@dataclass(frozen=True)
class Result:
    """What a stage answers: the outcome and a JSON-able report for people and machines."""

    outcome: Outcome
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 when done, 75 when stopped and saved."""
        return EXIT_DONE if self.outcome is Outcome.DONE else EXIT_STOPPED


class Stage(Protocol[ConfigT]):
    """The shape of every stage's `run`."""

    def __call__(self, config: ConfigT, stop: Stop, provenance: Provenance) -> Result:
        """Do the work, or go on with it."""
        ...


class StopFlag:
    """A `Stop` that signals set: the first asks the stage to save and leave, a second Ctrl-C ends it."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __call__(self) -> bool:
        """True once a signal came."""
        return self.signal_name is not None

    def listen(self, *signals: signal.Signals) -> "StopFlag":
        """Catch these signals in this process (main thread only)."""
        for number in signals or (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_name is not None:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name


def never() -> bool:
    """A `Stop` for work that nobody will interrupt."""
    return False
