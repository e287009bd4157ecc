"""Who evaluates a registered checkpoint now, so that two watchers do not do the same.

A claim is a tag of the version, written anew now and then while its owner lives. One that does not change
any more is taken over; so is, at once, one of a dead process on this machine. MLflow knows no exclusive
writing: of two that claim at the same moment the later one wins, which both see a moment later.
"""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hvc.evaluation.reports.registered import Registered

BEAT_SECONDS = 20.0
STALE_SECONDS = 90.0
_SETTLE_SECONDS = 0.5


class VersionClaims:
    """The claims of one watcher, for scores under one metrics path."""

    def __init__(self, path: str) -> None:
        self._tag = f"hvc.evaluating/{path}"
        self._me = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex[:8]}"
        self._seen: dict[tuple[str, str], tuple[str, float]] = {}

    def is_taken(self, version: Registered) -> bool:
        """Whether somebody else is at work on it, as far as can be seen."""
        claim, key = version.tags.get(self._tag), (version.model, version.version)
        if claim is None or claim.startswith(self._me):
            return False
        if _is_dead(claim):
            return False
        if key not in self._seen or self._seen[key][0] != claim:
            self._seen[key] = claim, time.monotonic()
        return time.monotonic() - self._seen[key][1] < STALE_SECONDS

    @contextmanager
    def hold(self, client: Any, version: Registered) -> Iterator[bool]:
        """Claim it while inside; False when somebody else was quicker."""
        if not self._take(client, version):
            yield False
            return
        done = threading.Event()
        beat = threading.Thread(target=self._beat, args=(client, version, done), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            done.set()
            beat.join(BEAT_SECONDS)
            with contextlib.suppress(Exception):  # a server that is away: the claim goes stale
                client.delete_model_version_tag(version.model, version.version, self._tag)

    def _take(self, client: Any, version: Registered) -> bool:
        now = self._claim_at(client, version)
        if self.is_taken(replace(version, tags={} if now is None else {self._tag: now})):
            return False
        try:
            self._write(client, version, 0)
        except Exception:
            now = self._claim_at(client, version)
            if now is None or now.startswith(self._me):
                raise
            return False  # a database takes one of two tags that are made at the same moment
        time.sleep(_SETTLE_SECONDS)
        return (self._claim_at(client, version) or "").startswith(self._me)

    def _claim_at(self, client: Any, version: Registered) -> str | None:
        claim = client.get_model_version(version.model, version.version).tags.get(self._tag)
        return None if claim is None else str(claim)

    def _beat(self, client: Any, version: Registered, done: threading.Event) -> None:
        number = 0
        while not done.wait(BEAT_SECONDS):
            number += 1
            with contextlib.suppress(Exception):  # the server may be back at the next
                self._write(client, version, number)

    def _write(self, client: Any, version: Registered, number: int) -> None:
        client.set_model_version_tag(version.model, version.version, self._tag, f"{self._me} {number}")


def _is_dead(claim: str) -> bool:
    """Whether the claim is of a process of this machine that is no more."""
    words = claim.split()
    if len(words) < 2 or words[0] != socket.gethostname() or not words[1].isdecimal():
        return False
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is somebody else's
        pass
    return False
