"""The output folder of a run: held by one run at a time, and never mixed between recipes."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from hvc.base.errors import HvcError, UsageError
from hvc.data_prep.manifest import Manifest
from hvc.pretrain import checkpoint as checkpoints
from hvc.pretrain.checkpoint import Checkpoint
from hvc.pretrain.order import steps_per_epoch
from hvc.pretrain.processes import Place
from hvc.pretrain.recipe import TrainConfig


def planned_steps(config: TrainConfig, manifest: Manifest) -> int:
    """Optimiser steps of the whole run."""
    return config.steps or config.epochs * steps_per_epoch(manifest.samples, config.batch_size)


@contextmanager
def hold_folder(config: TrainConfig, place: Place) -> Iterator[None]:
    """Make the folder, hold it against a second run, and clear what a killed attempt left."""
    if not place.first:
        yield
        return
    folder = config.folder
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise HvcError(f"cannot write to {folder}: {error.strerror}; choose another output=") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise HvcError(
                f"{folder}: another run writes here; wait for it or choose another output="
            ) from None
        checkpoints.clear_unfinished(folder / "checkpoints")
        (folder / "recipe.yaml").write_text(config.to_yaml())
        yield


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
