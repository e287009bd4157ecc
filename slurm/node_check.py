"""A short look at every rank before the stage: who computes far slower than the others, or not at all.

A node with a broken fan or a half-dead link makes all others wait at every step. Each rank times a matrix
product on its device and an all-reduce; rank 0 compares, and says which nodes the next attempt should do
without.
"""

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from hvc.base.errors import HvcError

SECONDS = 180.0
"""How far apart the ranks' starts may be; Python on a cold network file system takes its time."""
_REPEATS, _BUDGET_SECONDS = 3, 1.0
_PRODUCTS = 10
"""Timed together: a CPU that is held back is so a part of the time, and fast in between."""
_LEAST_SECONDS = 0.1
"""What is this little above the median is not slow, only disturbed."""
_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Timing:
    """What a rank measured."""

    rank: int
    node: str
    matmul_seconds: float
    """Of ten products, the best of a few; infinite where one was wrong."""
    allreduce_seconds: float
    """Of 1 MiB over all ranks, the best of a few."""


@dataclass(frozen=True)
class Finding:
    """What rank 0 makes of the timings."""

    timings: list[Timing]
    bad: dict[str, str]
    """Nodes, each with what is wrong."""


def bad_nodes(timings: Sequence[Timing], factor: float) -> dict[str, str]:
    """Nodes with a rank whose product took over `factor` times the median of all ranks, or was wrong.

    `factor` 0 minds only wrong ones. Times are in seconds.
    """
    # The lower one: of two ranks the faster, which the slower is measured by.
    median = statistics.median_low(timing.matmul_seconds for timing in timings)
    found: dict[str, str] = {}
    for timing in timings:
        took = timing.matmul_seconds
        if math.isinf(took):
            found[timing.node] = f"rank {timing.rank} computes wrongly"
        elif factor and took > factor * median and took - median > _LEAST_SECONDS:
            found.setdefault(
                timing.node, f"rank {timing.rank} took {took:.3f} s, the median rank {median:.3f} s"
            )
    return found


def spared(
    bad: Collection[str], working: Collection[str], excluded: Collection[str], needed: int
) -> list[str]:
    """Of the bad nodes those the job can do without: all of them, or none.

    Args:
        bad: Names.
        working: Of the partition's nodes those that are neither down nor drained.
        excluded: Nodes that the job does without already.
        needed: Number of nodes of the job.
    """
    left = set(working) - set(excluded) - set(bad)
    return sorted(bad) if len(left) >= needed else []


class Check:
    """One rank's part in the check; every rank calls the same methods, in the same order."""

    def __init__(self, rank: int, nodes: Sequence[str], seconds: float = SECONDS) -> None:
        """Meet the others at MASTER_ADDR:MASTER_PORT, where the stage will meet, too.

        Args:
            rank: This one.
            nodes: The node of every rank.
            seconds: How long ranks wait for each other.

        Raises HvcError when rank 0 cannot be reached.
        """
        c10d = _collectives()
        self._rank, self._nodes, self._patience = rank, nodes, timedelta(seconds=seconds)
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            # multi_tenant: the stage's own store in this process shares the port with this one
            store = c10d.TCPStore(address, port, None, rank == 0, self._patience, False, multi_tenant=True)
        except RuntimeError as error:
            raise HvcError(f"rank {rank} cannot meet the others at {address}:{port}: {error}") from None
        self._store: Any = c10d.PrefixStore("hvc-check", store)

    def leaves(self, factor: float, decide: Callable[[Finding], bool]) -> bool:
        """Whether all ranks should leave now; rank 0 decides so, by what was found.

        HvcError where a rank hears nothing from rank 0, or the ranks cannot add up a tensor.
        """
        seconds = product_seconds()
        self._store.set(f"product/{self._rank}", "")
        if self._rank == 0:
            absent = self._absent("product")
            found = Finding([], {self._nodes[rank]: f"rank {rank} gave no sign" for rank in absent})
            self._store.set("all-here", "no" if absent and decide(found) else "yes")
        if self._answer("all-here") == "no":
            return True
        timing = Timing(self._rank, self._nodes[self._rank], seconds, self._allreduce_seconds())
        self._store.set(f"timing/{self._rank}", json.dumps(asdict(timing)))
        if self._rank == 0:
            self._store.set("leave", "yes" if decide(self._finding(factor)) else "no")
        return self._answer("leave") == "yes"

    def _absent(self, what: str) -> list[int]:
        keys = [f"{what}/{rank}" for rank in range(len(self._nodes))]
        try:
            self._store.wait(keys, self._patience)
        except RuntimeError:  # not all of them came in time
            return [rank for rank, key in enumerate(keys) if not self._store.check([key])]
        return []

    def _answer(self, question: str) -> str:
        try:
            self._store.wait([question], 2 * self._patience)
        except RuntimeError as error:
            raise HvcError(f"rank {self._rank} hears nothing from rank 0: {error}") from None
        answer: bytes = self._store.get(question)
        return answer.decode()

    def _finding(self, factor: float) -> Finding:
        keys = [f"timing/{rank}" for rank in range(len(self._nodes))]
        self._store.wait(keys, self._patience)
        timings = [Timing(**json.loads(self._store.get(key))) for key in keys]
        return Finding(timings, bad_nodes(timings, factor))

    def _allreduce_seconds(self) -> float:
        import torch

        c10d = _collectives()
        try:
            size = len(self._nodes)
            group = c10d.ProcessGroupGloo(
                c10d.PrefixStore("gloo", self._store), self._rank, size, timeout=self._patience
            )
            group.barrier().wait()
            return _best(lambda: group.allreduce([torch.ones(_ELEMENTS)]).wait())
        except RuntimeError as error:
            raise HvcError(f"rank {self._rank} cannot add up a tensor with the others: {error}") from None


def _collectives() -> Any:
    # Imported here, as stages of one process do without torch; untyped, as its stubs lack half of this.
    import torch.distributed

    return torch.distributed


def product_seconds() -> float:
    """Time of ten matrix products on this rank's device, the best of a few; infinite where one is wrong."""
    import torch

    gpu = torch.cuda.is_available()
    index = int(os.environ.get("LOCAL_RANK", "0")) % max(1, torch.cuda.device_count())
    device = torch.device("cuda", index) if gpu else torch.device("cpu")
    side = 4096 if gpu else 768
    ones = torch.ones(side, side, device=device)
    if not bool((ones @ ones == side).all()):
        return math.inf

    def multiply() -> None:
        for _ in range(_PRODUCTS):
            torch.mm(ones, ones)
        if gpu:
            torch.cuda.synchronize(device)

    return _best(multiply)


def _best(work: Callable[[], object]) -> float:
    begin, best = time.perf_counter(), math.inf
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() - begin > _BUDGET_SECONDS:
            break
    return best
