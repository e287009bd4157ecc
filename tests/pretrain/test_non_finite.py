"""Steps whose loss or gradient is not finite: named, skipped or gone back over, and bounded in number."""

import pytest
import torch
from engine_harness import in_processes
from mutation import more_in_soak
from training_tensors import differing

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, never
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.training.finite import FiniteGuard

CPU = torch.device("cpu")


def guard(policy: str = "skip", limit: int = 3) -> FiniteGuard:
    config = TrainConfig.parse({"data": "x", "non_finite": {"policy": policy, "limit": limit}})
    return FiniteGuard(config, 2, CPU)


def note(
    watch: FiniteGuard, step: int, loss: float, gradient: float, skipped: float, overflow: float = 0.0
) -> None:
    watch.note(step, *(torch.tensor(value) for value in (loss, gradient, skipped, overflow)))


def test_rank_and_step_are_named(caplog):
    watch = guard()
    note(watch, 7, float("nan"), 1.0, 1.0)
    note(watch, 8, 1.0, float("inf"), 1.0)
    note(watch, 9, 1.0, 1.0, 0.0)
    verdicts = watch.verdicts()
    assert [(v.step, v.skipped) for v in verdicts] == [(7, True), (8, True), (9, False)]
    assert "rank 2: the loss is not finite at step 7" in caplog.text
    assert "rank 2: the gradient is not finite at step 8" in caplog.text
    assert watch.in_a_row == 0


def test_too_many_in_a_row_end_the_run():
    watch = guard(limit=3)
    for step in range(2):
        note(watch, step, float("nan"), 1.0, 1.0)
    note(watch, 2, 0.0, 0.0, 0.0)
    for step in range(3, 6):
        note(watch, step, float("nan"), 1.0, 1.0)
    with pytest.raises(HvcError, match=r"step 5, 3 in a row .*last checkpoint is untouched"):
        watch.verdicts()


def test_the_first_one_ends_a_run_that_asks_for_it():
    watch = guard(policy="stop")
    note(watch, 4, float("nan"), 1.0, 1.0)
    with pytest.raises(HvcError, match="step 4"):
        watch.verdicts()


def test_overflows_of_the_loss_scale_are_no_alarm_however_many(caplog):
    for policy in ("stop", "skip", "rollback"):
        watch = guard(policy, limit=2)
        for step in range(9):
            note(watch, step, 1.0, float("inf"), 1.0, 1.0)
        verdicts = watch.verdicts()
        assert [verdict.bad for verdict in verdicts] == [False] * 9
        assert watch.in_a_row == 0
    assert caplog.text == ""


def test_an_overflow_between_does_not_make_a_bad_row_a_good_one():
    watch = guard(limit=2)
    note(watch, 0, float("nan"), 1.0, 1.0)
    note(watch, 1, 1.0, float("inf"), 1.0, 1.0)
    note(watch, 2, float("nan"), 1.0, 1.0)
    with pytest.raises(HvcError, match=r"step 2, 2 in a row"):
        watch.verdicts()


def test_flags_that_come_late_are_waited_for_only_where_all_are_wanted():
    watch = guard()
    watch.lag = 1
    note(watch, 0, float("nan"), 1.0, 1.0)
    assert watch.verdicts() == []
    note(watch, 1, 1.0, 1.0, 0.0)
    assert [(verdict.step, verdict.bad) for verdict in watch.verdicts()] == [(0, True)]
    assert [(verdict.step, verdict.bad) for verdict in watch.verdicts(all_of_them=True)] == [(1, False)]


def train_with_a_bad_batch(place, data, output, options, bad_positions, bad_rank, lag=0, resumed=False):
    """A run in which one rank's images of some batches are NaN: what it ends with, and what it said.

    Flags come `lag` steps late, as from a GPU.
    """
    import logging
    from datetime import timedelta

    from hvc.pretrain.checkpoints.checkpoint import newest
    from hvc.pretrain.data.dataset import load_data
    from hvc.pretrain.data.feed import Feeder
    from hvc.pretrain.training.ranks import Ranks
    from hvc.pretrain.training.trainer import Trainer

    words: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record):
            words.append(record.getMessage())

    logging.getLogger("hvc").addHandler(Listener())
    logging.getLogger("hvc").setLevel(logging.INFO)
    images, positions = Feeder.images, []

    class Spoiling(Feeder):
        def parts(self, batch):
            self.position = batch.plan.step
            positions.append(self.position)
            return super().parts(batch)

        def images(self, part):
            views = images(self, part)
            spoil = place.rank == bad_rank and self.position in bad_positions
            return [view * float("nan") if spoil else view for view in views]

    import hvc.pretrain.training.trainer as module

    module.Feeder = Spoiling
    base = {"data": data, "output": output, "batch_size": 8, "steps": 8, "workers": 0, "log_every": 1}
    base |= {"views": {"size": 32}, "checkpoint": {"every": 2, "keep": 9}}
    config = TrainConfig.parse(base | options)
    ranks = Ranks(place, CPU, timedelta(minutes=5))
    with ranks.together():
        trainer = Trainer(config, load_data(config), ranks, CPU, None, Provenance())
        trainer._guard.lag = lag
        if resumed:
            trainer.restore(newest(config.checkpoints))
        assert trainer.train(never) is Outcome.DONE
        tensors = trainer.online.state_dict() | trainer.ema.network.state_dict()
        metrics = trainer.last_metrics
        state = newest(config.checkpoints).state if place.first else {}
    return {name: value.clone() for name, value in tensors.items()}, words, positions, metrics, state


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", more_in_soak([1], [0]))
def test_a_skipped_step_moves_nothing_but_the_schedules(dataset, tmp_path, zero_stage):
    # A target that stands still: its momentum would depend on the number of steps.
    options = {"engine": {"zero_stage": zero_stage}, "steps": 3, "ema_momentum": 1.0}
    arguments = (dataset, str(tmp_path / "a"), options, {2}, 1)
    got = in_processes(2, train_with_a_bad_batch, *arguments)
    short = options | {"steps": 2}
    expected = in_processes(2, train_with_a_bad_batch, dataset, str(tmp_path / "b"), short, set(), 1)
    assert any("rank 1: the loss is not finite at step 2" in word for word in got[1][1])
    assert not any("rank 0: the loss" in word for word in got[0][1])
    assert got[0][3]["train/non_finite_steps"] == 1
    assert "train/loss" not in got[0][3]  # the record is of that step alone
    for rank in range(2):
        own = {k: torch.from_numpy(v) for k, v in got[rank][0].items() if not k.startswith("target_")}
        true = {k: torch.from_numpy(v) for k, v in expected[rank][0].items() if not k.startswith("target_")}
        assert all(torch.isfinite(v).all() for v in own.values())
        assert differing(own, true) == []  # weights, and BatchNorm's statistics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lag", "bad", "taken", "left_out"),
    [
        # Back to step 4 from the bad batch 5, or from batch 6 where its flags come late: 6 is not lost.
        (0, 4, [0, 1, 2, 3, 4, 5, 6, 7, 8], 1),
        (1, 4, [0, 1, 2, 3, 4, 5, 5, 6, 7, 8], 1),
        # The last step before a checkpoint: nothing of it gets in, and no batch behind it is tried first.
        (0, 5, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2),
        (1, 5, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2),
        # The last of all.
        (1, 7, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 2),
    ],
)
def test_a_roll_back_goes_on_behind_the_bad_batch(dataset, tmp_path, lag, bad, taken, left_out):
    options = {"non_finite": {"policy": "rollback", "limit": 2}}
    arguments = (dataset, str(tmp_path / "a"), options, {bad}, 0, lag)
    (got,) = in_processes(1, train_with_a_bad_batch, *arguments)
    tensors, words, positions, metrics, state = got
    assert positions == taken
    assert any(f"back at step {bad + 1 - left_out}; the {left_out} batches" in word for word in words)
    assert state["left_out"] == left_out
    assert state["step"] == 8
    assert state["ema"]["step"] == 8
    assert all(torch.isfinite(torch.from_numpy(v)).all() for v in tensors.values())
    assert metrics["train/non_finite_steps"] == 0


@pytest.mark.slow
def test_late_flags_change_nothing_of_what_a_roll_back_ends_with(dataset, tmp_path):
    options = {"non_finite": {"policy": "rollback"}}
    ends = [
        in_processes(1, train_with_a_bad_batch, dataset, str(tmp_path / f"{lag}"), options, {4}, 0, lag)[0]
        for lag in (0, 1)
    ]
    early, late = ({name: torch.from_numpy(v) for name, v in end[0].items()} for end in ends)
    assert differing(early, late) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "bad", more_in_soak([7], [5])
)  # back to where the attempt began, and to its own checkpoint
def test_a_roll_back_of_a_resumed_run_leaves_the_ema_as_it_was_there(dataset, tmp_path, bad):
    """`ema_restart` is for interruptions; going back takes what this attempt's checkpoint had."""
    base = {"ema_restart": True, "non_finite": {"policy": "rollback"}}
    first = base | {"steps": 4}
    in_processes(1, train_with_a_bad_batch, dataset, str(tmp_path / "a"), first, set(), 0)
    arguments = (dataset, str(tmp_path / "a"), base, {bad}, 0, 0, True)
    (got,) = in_processes(1, train_with_a_bad_batch, *arguments)
    assert got[4]["step"] == 8
    assert got[4]["ema"]["step"] == 4  # anew at step 4, once per step since


def lose_the_checkpoints(place, data, output):
    from hvc.pretrain.training import trainer as module

    module.newest = lambda address: None
    options = {"non_finite": {"policy": "rollback"}}
    try:
        return train_with_a_bad_batch(place, data, output, options, {3}, 1)
    except (HvcError, SystemExit) as error:
        return [repr(error)]


@pytest.mark.slow
def test_without_a_checkpoint_to_go_back_to_all_ranks_end(dataset, tmp_path):
    (first,), (second,) = in_processes(2, lose_the_checkpoints, dataset, str(tmp_path / "a"))
    assert "step 3 is not finite and cannot be gone back over" in first
    assert second == "SystemExit(1)"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_under_fp16_is_for_the_policy_on_all_ranks(dataset, tmp_path):
    """NaN on one rank: both go back together, however often the scale had to find its value before."""
    options = {"non_finite": {"policy": "rollback", "limit": 1}, "engine": {"precision": "fp16"}}
    arguments = (dataset, str(tmp_path / "a"), options, {5}, 1)
    got = in_processes(2, train_with_a_bad_batch, *arguments)
    for _, _, positions, _, _ in got:
        assert positions == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    state = got[0][4]
    assert state["left_out"] == 2
    assert state["loss_scale"]["scale"] < 2.0**16  # it had
    assert any("rank 1: the loss is not finite at step 5" in word for word in got[1][1])


@pytest.mark.slow
def test_roll_backs_are_bounded(dataset, tmp_path):
    options = {"non_finite": {"policy": "rollback", "limit": 2}}
    with pytest.raises(AssertionError, match="2 roll-backs did not help"):
        in_processes(1, train_with_a_bad_batch, dataset, str(tmp_path / "a"), options, set(range(3, 90)), 0)
