"""Checkpoints that training removes while their evaluation waits for its turn."""

import logging

from hvc.base.errors import UsageError
from hvc.base.storage import open_store
from hvc.pretrain.checkpoints.checkpoint import complete_steps
from hvc.pretrain.checkpoints.marker import COMPLETE, step_of
from hvc.pretrain.tracking.mlflow_client import connect, shown

_GOES_ON = ("RUNNING", "SCHEDULED")
"""States at MLflow of a run that trains or will go on."""
_log = logging.getLogger(__name__)


class RemovedError(UsageError):
    """Training removed the checkpoint."""


def refuse_removed(reference: str, address: str) -> None:
    """RemovedError if a checkpoint is gone and its run has newer ones: it will not come back."""
    store = open_store(address)
    place, _, name = store.address.rpartition("/")
    step = step_of(name)
    if step is None or store.exists(COMPLETE):
        return
    newest = max(complete_steps(place), default=step)
    if newest > step:
        raise RemovedError(
            f"{reference}: {address} was removed, as its run keeps the newest checkpoints only "
            f"(`checkpoint.keep`); evaluate a newer one, e.g. step {newest}, or one that an alias at "
            "MLflow points to, which training never removes"
        )


def warning_of(run_id: str, step: int, uri: str) -> str | None:
    """What to say before an evaluation waits for its turn; None if training removes nothing of the run.

    None, too, if MLflow does not say.
    """
    try:
        run = connect(uri).get_run(run_id)
    except Exception as error:  # noqa: BLE001 - MLflow raises anything
        _log.debug("whether run %s goes on is not known: %s", run_id, shown(error, uri))
        return None
    keep, every = (run.data.params.get(f"checkpoint.{key}", "") for key in ("keep", "keep_every"))
    if run.info.status not in _GOES_ON or not keep.isdecimal():
        return None
    if every.isdecimal() and step % int(every) == 0:
        return None
    return (
        f"run {run_id} still trains and keeps {keep} checkpoints: step {step} is removed once {keep} newer "
        "ones are there, and jobs that begin later cannot evaluate it. An alias at MLflow on its version, "
        "other than `newest`, keeps it"
    )
