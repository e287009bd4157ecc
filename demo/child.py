"""A command in a process of its own that hears the signals meant for us, and once each."""

import os
import signal
import subprocess
from types import FrameType
from typing import NamedTuple

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """Its exit code; a signal that ended it is negative."""
    output: str
    """What it wrote to stdout."""
    heard: tuple[int, ...]
    """Signals that were passed on to it."""


def run(command: list[str]) -> Ended:
    """Run a command to its end; a signal is passed on, and the command decides what becomes of it.

    It has a process group of its own: a terminal's Ctrl-C would reach it twice, and the second asks a
    stage to leave without saving.
    """
    heard: list[int] = []
    # Held back until the child is there to be told.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, preexec_fn=_in_a_group_of_its_own
        )

        def forward(number: int, _frame: FrameType | None) -> None:
            heard.append(number)
            if child.poll() is None:
                child.send_signal(number)

        before = {number: signal.signal(number, forward) for number in _SIGNALS}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        output, _ = child.communicate()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return Ended(child.returncode, output, tuple(heard))


def _in_a_group_of_its_own() -> None:
    os.setpgrp()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
