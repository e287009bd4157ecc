"""The output folder of a run: held by one run at a time, and never mixed between recipes."""

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvc.base.errors import PlaceError, UsageError
from hvc.base.storage import open_store
from hvc.data_prep.claim import claimed
from hvc.data_prep.lock import NO_TURN, Turn, sole_writer
from hvc.pretrain.checkpoints.checkpoint import Checkpoint
from hvc.pretrain.checkpoints.retention import clear_scratch, clear_unfinished
from hvc.pretrain.data.dataset import TrainingData, plan_run
from hvc.pretrain.data.order import RunOrder
from hvc.pretrain.recipe import TrainConfig

CLAIM = ".claim"
"""In a bucket: who writes checkpoints there."""
LOCK_SECONDS = 10.0
"""Loader processes of a killed run hold the lock until they notice, a few seconds."""
_FOR_GOOD = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
)
"""Errors of making a folder with its parents that the same again meets again. A full disk, a stale handle
or a server that is away are none."""


class WrongPlaceError(PlaceError, UsageError):
    """A folder cannot be made where it was asked for (exit 2)."""


def cannot_make(folder: Path, error: OSError, key: str) -> PlaceError:
    """What to raise when a folder of results cannot be made; `key` chooses it."""
    kind = WrongPlaceError if error.errno in _FOR_GOOD else PlaceError
    return kind(f"cannot write to {folder}: {error.strerror}; choose another {key}")


def planned_steps(config: TrainConfig, data: TrainingData) -> int:
    """Optimiser steps of the whole run."""
    return config.steps or config.epochs * RunOrder(plan_run(config, data)).steps


@dataclass(frozen=True)
class Hold:
    """What a run holds; each check raises TakenOverError once that is somebody else's."""

    check_folder: Callable[[], None]
    """Of the output folder: cheap."""
    check_checkpoints: Callable[[], None]
    """Of the place of the checkpoints, and of the folder."""


@contextmanager
def hold_folder(config: TrainConfig, turn: Turn = NO_TURN) -> Iterator[Hold]:
    """Rank 0: make the folder, hold it against a second run, clear what a killed attempt left.

    Checkpoints in a bucket are held, too: a run of another folder or machine may write to the same place.
    By its `turn` an attempt takes over from earlier ones that hang where nobody reaches them.
    """
    folder = config.folder
    _make(folder, "output=")
    with ExitStack() as held:
        checks = [held.enter_context(sole_writer(folder / ".lock", str(folder), LOCK_SECONDS, turn))]
        if config.checkpoints.startswith("s3://"):
            place_in_bucket = open_store(config.checkpoints)
            checks.append(held.enter_context(claimed(place_in_bucket, CLAIM, CLAIM, turn)).check)
        elif config.checkpoint.address:
            place = Path(config.checkpoints)
            _make(place, "checkpoint.address=")
            checks.append(held.enter_context(sole_writer(place / ".lock", str(place), LOCK_SECONDS, turn)))
        clear_unfinished(config.checkpoints)
        clear_scratch(folder)

        def check_all() -> None:
            for check in checks:
                check()

        yield Hold(checks[0], check_all)


def _make(folder: Path, key: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_make(folder, error, key) from None


def refuse_other_recipe(config: TrainConfig, data: TrainingData, found: Checkpoint) -> None:
    """UsageError if the checkpoint comes from other data or another method than this recipe's."""
    state = found.state
    if state["dataset"] != data.digest:
        raise UsageError(
            f"{found.address} was trained on dataset {state['dataset'][:12]}, {data.address} is "
            f"{data.digest[:12]}; choose another output="
        )
    # compile is no part of the method, and was once allowed together with recompute.
    old = TrainConfig.parse(state["recipe"], ["engine.compile=false"], where=found.address).method()
    new = config.method()
    changed = ", ".join(_differences(old, new))
    if changed:
        raise UsageError(
            f"{found.address} was trained by another recipe (changed: {changed}); choose another "
            "output= or go back to the old values"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """`section.key OLD, now NEW` of all that differs."""
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            yield from _differences(before, value, f"{prefix}{key}.")
        elif before != value:
            yield f"{prefix}{key} {before!r}, now {value!r}"
