"""Who may write to an output: one run alone, or several parts of one plan side by side.

In a folder these are file locks, which die with their process; elsewhere claims, which have to be kept
alive. Both say BusyError when somebody else is at work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hvc.base.storage import Store
from hvc.data_prep.claim import Claim, claimed
from hvc.data_prep.lock import NO_TURN, Turn, one_of_several_writers, sole_writer


class Exclusion(Protocol):
    """The right to write to one output."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold all of it: nobody else writes there."""
        ...

    @contextmanager
    def part(self, number: int) -> Iterator[None]:
        """Hold one part of it: nobody else makes this part, and nobody holds all of it."""
        ...

    def check(self) -> None:
        """HvcError when somebody took over what we hold."""
        ...


class FolderExclusion:
    """By locks `lock` and `lock-part-N` in a folder."""

    def __init__(self, folder: Path, output: str, turn: Turn = NO_TURN) -> None:
        self.lock = folder / "lock"
        self._output, self._turn = output, turn
        self._check: Callable[[], None] = lambda: None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold all of it: nobody else writes there."""
        with sole_writer(self.lock, self._output, turn=self._turn) as self._check:
            yield

    @contextmanager
    def part(self, number: int) -> Iterator[None]:
        """Hold one part of it: nobody else makes this part, and nobody holds all of it."""
        mine = self.lock.with_name(f"{self.lock.name}-part-{number}")
        with (
            one_of_several_writers(self.lock, self._output),
            sole_writer(mine, f"{self._output} (part {number})", turn=self._turn) as self._check,
        ):
            yield

    def check(self) -> None:
        """Only a later attempt can: a lock lives as long as its process."""
        self._check()


class StoreExclusion:
    """By claims `PREFIX.json` and `PREFIX-part-N.json` in a store."""

    def __init__(self, store: Store, prefix: str, turn: Turn = NO_TURN) -> None:
        self._store, self._prefix, self._turn = store, prefix, turn
        self._claim: Claim | None = None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold all of it: nobody else writes there."""
        with claimed(
            self._store, f"{self._prefix}.json", rivals=self._prefix, turn=self._turn
        ) as self._claim:
            yield

    @contextmanager
    def part(self, number: int) -> Iterator[None]:
        """Hold one part of it: nobody else makes this part, and nobody holds all of it."""
        mine, whole = f"{self._prefix}-part-{number}.json", f"{self._prefix}.json"
        with claimed(self._store, mine, whole, self._turn) as self._claim:
            yield

    def check(self) -> None:
        """HvcError when somebody took over what we hold."""
        if self._claim is not None:
            self._claim.check()
