"""Tracked runs that are killed while they send: `python tracking_kills.py FOLDER URI SEED COUNT`.

What takes seconds to import is imported once; every run is a fork that ends by SIGKILL.
"""

import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import mlflow
from tracked_runs import in_journal, track, values_at, wait_until

STEPS = 400
"""Steps that an attempt would make if nobody killed it."""


def attempt(folder: Path, uri: str, first: int) -> None:
    """Steps from `first` on, a little faster than the server takes them."""
    from hvc.pretrain.tracking import sender

    sender.INTERVAL = 0.02  # else most attempts would die before anything is sent
    tracker = track(folder, uri)
    for step in range(first, first + STEPS):
        tracker.metrics(step, values_at(step))
        time.sleep(0.002)


def main(folder: Path, uri: str, seed: int, count: int) -> None:
    """Attempts that each go on from a step at or before the one that was reached."""
    rng = random.Random(seed)
    mlflow.MlflowClient(uri)
    reached = 1
    for _ in range(count):
        child = os.fork()
        if child == 0:
            try:
                attempt(folder, uri, reached)
            finally:
                os._exit(0)
        if rng.random() < 0.5:  # else it may be killed before it has recorded anything
            wait_until(partial(has_passed, folder, reached_in(folder)))
        time.sleep(rng.uniform(0.02, 1.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        reached = max(1, reached_in(folder) - rng.randrange(20))


def has_passed(folder: Path, step: int) -> bool:
    """Whether a later step is recorded."""
    return reached_in(folder) > step


def reached_in(folder: Path) -> int:
    """The last step that is recorded; 0 if none is."""
    return in_journal(folder).get("train/loss", [(0, 0.0, 0)])[-1][0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
