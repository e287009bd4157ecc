"""Another number of ranks takes a run over: every tensor it loads is the one that was saved, merged where
each rank had its own, and the order of samples goes on unbroken."""

from datetime import timedelta
from itertools import count

import numpy as np
import pytest
import torch
from engine_harness import in_processes
from mutation import more_in_soak

from hvc.base.stage import Outcome, Provenance
from hvc.pretrain.checkpoints.checkpoint import merge_buffers, newest
from hvc.pretrain.data.dataset import load_data, plan_run
from hvc.pretrain.data.order import RunOrder
from hvc.pretrain.recipe import TrainConfig

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
STOP_AFTER = 5  # in the middle of the second epoch, whose last batch is short
STEPS = 9


def config_of(dataset: str, output: str, zero_stage: int) -> TrainConfig:
    return TrainConfig.parse(
        {
            "data": dataset,
            "output": output,
            "batch_size": 8,
            "steps": STEPS,
            "workers": 0,
            "views": {"size": 32},
            "engine": {"zero_stage": zero_stage},
            "checkpoint": {"every": 100},
        }
    )


def train(place, config, stop_after):
    """Train on, if there is something to go on from; what this rank loaded, and which samples it took."""
    from hvc.pretrain.data.feed import Feeder
    from hvc.pretrain.training.ranks import Ranks
    from hvc.pretrain.training.trainer import Trainer

    taken, parts = [], Feeder.parts

    def recorded(self, batch):
        taken.append((batch.plan.step, batch.plan.samples.tolist() if batch.plan.weight else []))
        return parts(self, batch)

    Feeder.parts = recorded
    asked = count(1)
    ranks = Ranks(place, CPU, timedelta(minutes=5))
    with ranks.together():
        trainer = Trainer(config, load_data(config), ranks, CPU, None, Provenance())
        found = newest(config.checkpoints) if place.first else None
        start = ranks.first_decides(lambda: found.step if found else 0)
        if start:
            trainer.restore(found)
        networks = trainer.online.state_dict() | trainer.ema.network.state_dict()
        loaded = {name: value.clone() for name, value in networks.items()}
        loaded |= {f"adam/{name}": value for name, value in trainer.engine.optimiser_state().items()}
        loaded["ema step"] = torch.tensor(trainer.ema.step)
        outcome = trainer.train(lambda: next(asked) == stop_after)
    return start, loaded, taken, str(outcome)


@pytest.mark.parametrize(
    ("before", "after", "zero_stage"),
    more_in_soak(
        [(1, 2, 1), (2, 1, 0), (2, 3, 0), (4, 2, 1)],
        [(1, 2, 0), (2, 1, 1), (2, 3, 1), (4, 2, 0)],
    ),
)
def test_another_number_of_ranks_goes_on(dataset, tmp_path, before, after, zero_stage):
    config = config_of(dataset, str(tmp_path / "run"), zero_stage)
    first = in_processes(before, train, config, STOP_AFTER)
    assert {outcome for _, _, _, outcome in first} == {Outcome.STOPPED}
    saved = newest(config.checkpoints)
    assert saved is not None
    assert saved.step == STOP_AFTER
    parameters, adam, buffers = saved.tensors("model"), saved.tensors("optimizer"), saved.rank_buffers
    assert len(buffers) == before

    second = in_processes(after, train, config, None)
    expected = parameters | merge_buffers(buffers) | {f"adam/{name}": value for name, value in adam.items()}
    expected["ema step"] = torch.tensor(saved.state["ema"]["step"])
    for start, loaded, _, outcome in second:
        assert start == STOP_AFTER
        assert outcome == Outcome.DONE
        assert loaded.keys() == expected.keys()
        assert [
            name for name, value in expected.items() if not np.array_equal(loaded[name], value.numpy())
        ] == []
    if before > 1:  # what is merged was not the same everywhere
        mean = "online_encoder.bn1.running_mean"
        assert not torch.equal(buffers[0][mean], buffers[1][mean])

    order = RunOrder(plan_run(config, load_data(config)))
    planned = {step: order.batch_of(step, 0, 1).samples.tolist() for step in range(STEPS)}
    seen: dict[int, list[int]] = {}
    for ranks in (first, second):
        for _, _, taken, _ in ranks:
            for step, samples in taken:
                seen.setdefault(step, []).extend(samples)
    assert seen == planned


def test_the_same_number_of_ranks_gets_each_its_own_buffers_back(dataset, tmp_path):
    config = config_of(dataset, str(tmp_path / "run"), 0)
    in_processes(2, train, config, STOP_AFTER)
    saved = newest(config.checkpoints)
    assert saved is not None
    again = in_processes(2, train, config, None)
    for rank, (_, loaded, _, _) in enumerate(again):
        for name, value in saved.rank_buffers[rank].items():
            if not name.startswith("rng/"):
                assert np.array_equal(loaded[name], value.numpy()), name
