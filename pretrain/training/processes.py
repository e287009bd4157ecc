"""Who takes part in a run: this process's rank, and N local processes started from one command.

A process learns its place from torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT), whoever sets it: torchrun itself, `hvc train --processes N`, or a Slurm job.
"""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import NamedTuple

from hvc.base.errors import EXIT_DONE, EXIT_STOPPED, HvcError, UsageError
from hvc.data_prep.pool import default_workers

LAST_SECONDS = 120.0
"""How long ranks may go on after the first one has left in peace; a frozen one never leaves."""
_GRACE_SECONDS = 10.0
_SETTLE_SECONDS = 0.5  # one that is killed takes others with it: who left first is seen by then
_PR_SET_PDEATHSIG = 1
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A process's place in the run."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int = 1
    """Processes on this machine."""

    @property
    def first(self) -> bool:
        """Rank 0 tracks, prints and commits."""
        return self.rank == 0


def own_place() -> Place:
    """Read torchrun's environment; alone without one (then the environment is filled in)."""
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(free_port()))
    try:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            os.environ[name]
        rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return Place(rank, size, local, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"RANK is set but {error} is wrong or missing; start with torchrun, `--processes N` or "
            "`hvc submit`, or unset RANK"
        ) from None


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_local(count: int, arguments: list[str]) -> int:
    """Run `hvc ARGUMENTS` as `count` ranks on this machine; returns the exit code for all.

    Signals are passed on. When a rank fails, the others are ended: none is left waiting for it. One that
    is still there LAST_SECONDS after another has left in peace is ended, too.

    Raises HvcError, after all have left, when a rank was ended by a signal.
    """
    port = str(free_port())
    threads = str(max(1, default_workers() // count))
    common = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    common["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", threads)
    children = []
    for rank in range(count):
        environment = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-c", "import hvc; hvc.main()", *arguments]
        children.append(subprocess.Popen(command, env=environment, preexec_fn=_die_with_parent))
    _pass_signals_on(children)
    return _wait(children)


def _die_with_parent() -> None:
    # SIGKILL of the launcher must not leave ranks behind that hold the output folder.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A terminal's Ctrl-C reaches the launcher, which passes it on once.
    os.setpgrp()


def _pass_signals_on(children: list["subprocess.Popen[bytes]"]) -> None:
    def forward(number: int, _frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, forward)


def _wait(children: list["subprocess.Popen[bytes]"], patience: float = LAST_SECONDS) -> int:
    """The exit code for all, by rank; nobody is left when it returns."""
    deadline: float | None = None
    while True:
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code not in (None, EXIT_DONE, EXIT_STOPPED)]
        if failed:
            return _after_failure(children)
        if None not in codes:
            return EXIT_STOPPED if EXIT_STOPPED in codes else EXIT_DONE
        if deadline is None and any(code is not None for code in codes):
            deadline = time.monotonic() + patience
        if deadline is not None and time.monotonic() > deadline:
            late = ", ".join(f"rank {rank}" for rank, code in enumerate(codes) if code is None)
            _end(children)
            _log.error(
                "%s did not leave within %.0f s of the others and was ended; start the same command again: "
                "it goes on from the last checkpoint",
                late,
                patience,
            )
            return EXIT_STOPPED
        time.sleep(0.05)


def _after_failure(children: list["subprocess.Popen[bytes]"]) -> int:
    time.sleep(_SETTLE_SECONDS)
    codes = [child.poll() for child in children]
    _end(children)
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            raise HvcError(_ended_by_signal(rank, -code))
    return next(code for code in codes if code not in (None, EXIT_DONE, EXIT_STOPPED))


def _ended_by_signal(rank: int, number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else "no name"
    cause = "out of memory? see dmesg" if number == signal.SIGKILL else "its last words stand above"
    return (
        f"rank {rank} was ended by signal {number} ({name}): {cause}; start the same command again to go "
        "on from the last checkpoint"
    )


def _end(children: list["subprocess.Popen[bytes]"]) -> None:
    deadline = time.monotonic() + _GRACE_SECONDS
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
