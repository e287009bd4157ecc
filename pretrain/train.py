"""The training stage: find out where the run stands, train from there, say how it ended."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.base.files import read_json, write_atomic
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.data_prep.lock import Turn
from hvc.pretrain.checkpoints.checkpoint import Checkpoint, newest
from hvc.pretrain.checkpoints.marker import step_name
from hvc.pretrain.data.dataset import TrainingData, load_data
from hvc.pretrain.data.loaders import start_server
from hvc.pretrain.model.cost import cost_of, lines
from hvc.pretrain.output import Hold, hold_folder, planned_steps, refuse_other_recipe
from hvc.pretrain.preflight import refuse_hopeless, warnings
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.journal import JOURNAL
from hvc.pretrain.tracking.journal_state import JournalState
from hvc.pretrain.tracking.run_note import NOTE
from hvc.pretrain.tracking.tracker import Tracker, resumed_from, settle
from hvc.pretrain.training.engine import choose_device
from hvc.pretrain.training.processes import own_place
from hvc.pretrain.training.ranks import Ranks
from hvc.pretrain.training.trainer import Trainer

_AFTER_THE_WATCHDOG = 300.0
"""Collectives give up so many seconds after the watchdog, which has more to say."""
_log = logging.getLogger(__name__)


def run(config: TrainConfig, stop: Stop, provenance: Provenance) -> Result:
    """Train, or go on from the newest complete checkpoint."""
    place = own_place()
    data = load_data(config)
    if config.workers:
        start_server()  # imports while this process does
    device = choose_device(config.engine.device, place)
    ranks = Ranks(place, device, timedelta(seconds=config.watchdog_seconds + _AFTER_THE_WATCHDOG))
    tracker: Tracker | None = None
    found: Checkpoint | None = None
    check_hold: Callable[[], None] = lambda: None  # noqa: E731
    turn = Turn(provenance.lineage, provenance.attempt)
    with ranks.together(), ExitStack() as held:

        def begin() -> int:
            nonlocal tracker, found, check_hold
            refuse_hopeless(config, data, device)
            hold = held.enter_context(hold_folder(config, turn))
            check_hold = hold.check_checkpoints
            found, tracker = _begin(config, data, provenance, place.world_size, hold)
            return found.step if found else 0

        start = ranks.first_decides(begin)
        if start == planned_steps(config, data):
            return Result(Outcome.DONE, _finished_report(config, start))
        outcome: Outcome | None = None
        try:
            trainer = Trainer(config, data, ranks, device, tracker, provenance, check_hold)
            if start:
                trainer.restore(found)
            found = None  # of a bucket's it holds a copy on disk
            outcome = trainer.train(stop)
        finally:
            if tracker:
                tracker.finish(outcome)
        return Result(outcome, _report(config, trainer, tracker))


def _begin(
    config: TrainConfig, data: TrainingData, provenance: Provenance, world_size: int, hold: Hold
) -> tuple[Checkpoint | None, Tracker | None]:
    """Rank 0, holding the folder: the checkpoint to start from, and the run to track into.

    Nothing of a finished run changes, except what a kill or a dead server kept from MLflow.
    """
    found = newest(config.checkpoints)
    if found:
        refuse_other_recipe(config, data, found)
        if found.step == planned_steps(config, data):
            settle(config, data, provenance, found)
            return found, None
    else:
        _refuse_lost_checkpoints(config)
    for words in warnings(config, data, world_size):
        _log.warning("%s", words)
    cost = cost_of(config.architecture, config.views.size)
    described = lines(cost) if cost else []
    for words in described:
        _log.info("%s", words)
    tracker = Tracker(
        config,
        data,
        provenance,
        resumed=resumed_from(found) if found else None,
        facts=dict(zip(("model", "work"), described, strict=False)),
        check=hold.check_folder,
    )
    tracker.repair(config.checkpoints)
    write_atomic(config.folder / "recipe.yaml", config.to_yaml())
    return found, tracker


def _refuse_lost_checkpoints(config: TrainConfig) -> None:
    """HvcError if the run here had checkpoints and none can be used: its record is of other weights."""
    recorded = JournalState.of(config.folder / JOURNAL).newest
    if recorded:
        raise HvcError(
            f"the run in {config.folder} has a checkpoint {recorded['address']}, but none in "
            f"{config.checkpoints} can be used; give the right checkpoint.address=, or begin anew with "
            "another output="
        )


def _report(config: TrainConfig, trainer: Trainer, tracker: Tracker | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "step": trainer.step,
        "steps": trainer.total_steps,
        "checkpoint": f"{config.checkpoints}/{step_name(trainer.step)}",
        "metrics": {
            name: value
            for name, value in trainer.last_metrics.items()
            if name.startswith(("train/", "perf/"))
        },
    }
    if tracker:
        report |= {"run_id": tracker.run_id, "tracking_uri": public(tracker.uri)}
    return report


def _finished_report(config: TrainConfig, step: int) -> dict[str, Any]:
    address = f"{config.checkpoints}/{step_name(step)}"
    report = {"step": step, "steps": step, "checkpoint": address, "metrics": {}}
    note = read_json(config.folder / NOTE) or {}
    return report | {key: note[key] for key in ("run_id", "tracking_uri") if key in note}
