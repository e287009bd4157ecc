"""Server processes of a test session, none of which outlives it.

Every process carries the group's mark in its environment and hands it on to its children, so the
group can be swept from `/proc` whatever forked, detached or changed its session. A keeper process
sweeps too when the test session itself was killed.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

HOST = "127.0.0.1"
MARK = "HVC_TEST_SERVICE"


class ServiceError(RuntimeError):
    """A server did not start; the message ends with what it wrote."""


class ProcessGroup:
    """Processes that live and end together; their output goes to `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        self._children: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.sweep)
        # Started without the mark (it would sweep itself) and in its own session (Ctrl-C spares it).
        self._keeper = subprocess.Popen(
            [sys.executable, "-S", __file__, self.mark, str(os.getpid())],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )

    @property
    def env(self) -> dict[str, str]:
        """The mark as environment, for whatever else should end with the group."""
        return dict([self.mark.split("=", 1)])

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Run a command in the background, its output in `folder/name.out`."""
        with self.output(name).open("ab") as output:
            child = subprocess.Popen(
                list(command),
                env={**os.environ, **(env or {}), **self.env},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def output(self, name: str) -> Path:
        """Where a process's stdout and stderr go."""
        return self.folder / f"{name}.out"

    def sweep(self) -> None:
        """Kill every process that carries the mark; a second call does nothing."""
        sweep(self.mark)
        while self._children:
            self._children.pop().wait()

    def close(self) -> None:
        """Sweep, and dismiss the keeper."""
        self.sweep()
        self._keeper.kill()
        self._keeper.wait()
        atexit.unregister(self.sweep)


def wait_until(
    ready: Callable[[], bool],
    what: str,
    process: subprocess.Popen[bytes],
    output: Path,
    timeout: float = 120,
) -> None:
    """Poll until `ready`; ServiceError with the tail of `output` when the process ends or time is up."""
    end = time.monotonic() + timeout
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            state = "is not up in time" if process.poll() is None else f"ended with {process.returncode}"
            tail = output.read_text(errors="replace")[-2000:] if output.exists() else ""
            raise ServiceError(f"{what} {state}; {output} ends with:\n{tail}")
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def marked(mark: str) -> list[int]:
    """Ids of the processes that carry the mark (zombies have no environment left)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if mark.encode() in environ.split(b"\0"):
            found.append(int(folder.name))
    return found


def sweep(mark: str) -> None:
    """Kill the marked processes until none is left (at most ten seconds)."""
    end = time.monotonic() + 10
    while (found := marked(mark)) and time.monotonic() < end:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def keep(mark: str, session: int) -> None:
    """Wait for the test session to end, in whatever way, then sweep."""
    while os.getppid() == session:
        time.sleep(0.5)
    sweep(mark)


if __name__ == "__main__":
    keep(sys.argv[1], int(sys.argv[2]))
