"""One writer at a time where there are no file locks: a claim is an object that its holder keeps alive.

The holder rewrites it every few seconds. Whoever finds it asks, on the same machine, whether the process
still lives, and elsewhere watches whether the object still changes; no two clocks are compared.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hvc.base.storage import AlreadyExistsError, MissingError, StorageError, Store
from hvc.data_prep.lock import NO_TURN, BusyError, TakenOverError, Turn

BEAT_SECONDS = 10.0
"""How often a holder rewrites its claim."""

PATIENCE_SECONDS = 60.0
"""A claim that did not change for so long belongs to nobody any more."""

_SETTLE_SECONDS = 1.0  # two who take over at once: so long after it only the second one's claim is there

_log = logging.getLogger(__name__)


class Holder(BaseModel):
    """Who holds a claim."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    machine: str
    """Tells machines and containers apart whose host names are the same."""
    pid: int
    started: str
    """Start time of the process: a later one may have got its number."""
    token: str
    beat: int = 0
    lineage: str = ""
    """With the number of the attempt its turn, see `lock.Turn`."""
    number: int = 0

    @classmethod
    def here(cls, turn: Turn = NO_TURN) -> "Holder":
        """This process, with a new token."""
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            started=_start_time(os.getpid()) or "",
            token=secrets.token_hex(16),
            lineage=turn.lineage,
            number=turn.number,
        )

    @property
    def turn(self) -> Turn:
        """Its place among the attempts of its row."""
        return Turn(self.lineage, self.number)

    def is_dead(self) -> bool | None:
        """Whether the process is gone; None when it cannot be seen from here."""
        if self.machine != _machine() or not self.started:
            return None
        return _start_time(self.pid) != self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Claim:
    """A claim on a store, held from `take` to `release`."""

    def __init__(self, store: Store, name: str, turn: Turn = NO_TURN) -> None:
        """An earlier attempt's claim, by its turn, is taken over at once."""
        self.name = name
        self._store = store
        self._me = Holder.here(turn)
        self._taken_by: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)

    def take(self) -> None:
        """Hold it; BusyError says who does. A dead holder's claim is taken over."""
        taken_over = False
        while not self._create():
            _evict(self._store, self.name, self._me.turn)
            taken_over = True
        if taken_over:
            time.sleep(_SETTLE_SECONDS)
            self._look()
            if self._taken_by is not None:
                raise _busy(self._store, self._taken_by)
        self._thread.start()

    def check(self) -> None:
        """TakenOverError when somebody else took over: a later attempt, or because this process hung."""
        if self._taken_by is None:
            self._look()
        if self._taken_by is not None:
            raise TakenOverError(
                f"output {self._store.address} was taken over by {self._taken_by}: a later attempt of the "
                f"same job, or this run gave no sign for {PATIENCE_SECONDS:.0f} s; it ends here and the "
                "other one goes on"
            )

    def release(self) -> None:
        """Give it back, if it is still ours."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._look()
            if self._taken_by is None:
                self._store.delete(self.name)
        except StorageError as error:
            _log.warning("%s; the next run will take the claim over", error)

    def _create(self) -> bool:
        try:
            self._store.create(self.name, _to_bytes(self._me))
        except AlreadyExistsError:
            # A request that was repeated after a lost answer finds its own first try.
            there = _read(self._store, self.name)
            return there is not None and _token(there) == self._me.token
        return True

    def _look(self) -> None:
        there = _read(self._store, self.name)
        if there is not None and _token(there) == self._me.token:
            return
        holder = _parse(there) if there is not None else None
        if holder is not None and self._me.turn.follows(holder.turn):
            # Taken over from while it was writing its sign of life: that came after ours.
            self._store.write(self.name, _to_bytes(self._me))
            return
        self._taken_by = _name(there)

    def _keep_alive(self) -> None:
        while self._taken_by is None and not self._ended.wait(BEAT_SECONDS):
            try:
                self._look()
                if self._taken_by is None:
                    self._me = self._me.model_copy(update={"beat": self._me.beat + 1})
                    self._store.write(self.name, _to_bytes(self._me))
            except StorageError as error:
                _log.warning("%s; trying again", error)


@contextmanager
def claimed(store: Store, name: str, rivals: str, turn: Turn = NO_TURN) -> Iterator[Claim]:
    """Hold the claim `name` while no claim whose name begins with `rivals` is held; else BusyError."""
    claim = Claim(store, name, turn)
    claim.take()
    try:
        # Claim first, look second: of two who do so at once, at least one sees the other.
        for rival in _others(store, rivals, name):
            _evict(store, rival, turn)
        yield claim
    finally:
        claim.release()


def _others(store: Store, rivals: str, name: str) -> Sequence[str]:
    return [rival for rival in store.names(rivals) if rival != name]


def _evict(store: Store, name: str, turn: Turn) -> None:
    """Remove the claim of a dead holder, or of an earlier attempt; BusyError if another lives."""
    there = _read(store, name)
    if there is None:
        return
    holder = _parse(there)
    earlier = holder is not None and turn.follows(holder.turn)
    dead = earlier or (holder.is_dead() if holder else None)
    if dead is False:
        raise _busy(store, str(holder))
    if dead is None:
        _watch(store, name, there)
    _log.warning("%s: taking over from %s, which is gone", store.address, _name(there))
    if _read(store, name) == there:
        store.delete(name)


def _watch(store: Store, name: str, there: bytes) -> None:
    """Return once the claim did not change for long; BusyError when it does."""
    _log.warning(
        "%s is held by %s; watching for %.0f s whether it still works",
        store.address,
        _name(there),
        PATIENCE_SECONDS,
    )
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / 5)
        now = _read(store, name)
        if now is None:
            return
        if now != there:
            raise _busy(store, _name(now))


def _busy(store: Store, who: str) -> BusyError:
    return BusyError(
        f"output {store.address}: another run writes here ({who}); wait until it ends, or choose "
        "another output"
    )


def _read(store: Store, name: str) -> bytes | None:
    try:
        return store.read(name)
    except MissingError:
        return None


def _to_bytes(holder: Holder) -> bytes:
    return json.dumps(holder.model_dump()).encode()


def _parse(data: bytes) -> Holder | None:
    try:
        return Holder.model_validate_json(data)
    except ValidationError:
        return None


def _token(data: bytes) -> str | None:
    holder = _parse(data)
    return holder.token if holder else None


def _name(data: bytes | None) -> str:
    return str((_parse(data) if data else None) or "somebody unknown")


def _machine() -> str:
    """Host name, and on Linux also what tells boots and containers apart."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts += [boot.read_text().strip(), str(Path("/proc/self/ns/pid").readlink())]
    return " ".join(parts)


def _start_time(pid: int) -> str | None:
    """When a process began, in the kernel's own count; None if there is none, or only its remains."""
    try:
        # The name before the last bracket may hold anything; then follow the state, and 18 more.
        state, *rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in ("Z", "X") else rest[18]
