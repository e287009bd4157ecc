"""The output folder of a run: held by one run at a time, and never mixed between recipes."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hvc.base.errors import HvcError, UsageError
from hvc.data_prep.manifest import Manifest
from hvc.pretrain import checkpoint as checkpoints
from hvc.pretrain.checkpoint import Checkpoint
from hvc.pretrain.order import steps_per_epoch
from hvc.pretrain.recipe import TrainConfig


def planned_steps(config: TrainConfig, manifest: Manifest) -> int:
    """Optimiser steps of the whole run."""
    return config.steps or config.epochs * steps_per_epoch(manifest.samples, config.batch_size)


LOCK_SECONDS = 10.0


@contextmanager
def hold_folder(config: TrainConfig) -> Iterator[None]:
    """Rank 0: make the folder, hold it against a second run, clear what a killed attempt left."""
    folder = config.folder
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise HvcError(f"cannot write to {folder}: {error.strerror}; choose another output=") from None
    with lock:
        _take(lock, folder)
        checkpoints.clear_unfinished(folder / "checkpoints")
        yield


def _take(lock: IO[str], folder: Path) -> None:
    # Loader processes of a killed run hold the lock until they notice, a few seconds.
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise HvcError(
                    f"{folder}: another run writes here; wait or choose another output="
                ) from None
        time.sleep(0.1)


def refuse_other_recipe(config: TrainConfig, manifest: Manifest, found: Checkpoint) -> None:
    """UsageError if the checkpoint comes from other data or another method than this recipe's."""
    state = found.state
    if state["dataset"] != manifest.digest:
        raise UsageError(
            f"{found.folder} was trained on dataset {state['dataset'][:12]}, {config.data} is "
            f"{manifest.digest[:12]}; choose another output="
        )
    old, new = TrainConfig.parse(state["recipe"], where=str(found.folder)).method(), config.method()
    changed = ", ".join(key for key in new if old[key] != new[key])
    if changed:
        raise UsageError(
            f"{found.folder} was trained by another recipe (changed: {changed}); choose another "
            "output= or go back to the old values"
        )
