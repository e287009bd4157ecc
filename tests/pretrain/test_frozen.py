"""A trunk of the user's own with a layer that is not trained: steps, a checkpoint, and on from it."""

from datetime import timedelta
from itertools import count

import pytest
import torch
from engine_harness import in_processes
from foreign_trunks import frozen_stem
from mutation import more_in_soak
from training_tensors import all_tensors, differing

from hvc.base.errors import HvcError
from hvc.base.stage import Provenance
from hvc.pretrain.checkpoints.checkpoint import Checkpoint, newest
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.training.engine import saved

CPU = torch.device("cpu")


def config_of(dataset: str, output: str, zero_stage: int) -> TrainConfig:
    return TrainConfig.parse(
        {
            "data": dataset,
            "output": output,
            "architecture": "foreign_trunks:frozen_stem",
            "batch_size": 8,
            "steps": 4,
            "workers": 0,
            "weight_decay": 0.1,
            "views": {"size": 32},
            "engine": {"zero_stage": zero_stage},
            "checkpoint": {"every": 100},
        }
    )


def train(place, config, stop_after):
    """Train on, if there is something to go on from."""
    from hvc.pretrain.training.ranks import Ranks
    from hvc.pretrain.training.trainer import Trainer

    asked = count(1)
    ranks = Ranks(place, CPU, timedelta(minutes=5))
    with ranks.together():
        trainer = Trainer(config, load_data(config), ranks, CPU, None, Provenance())
        found = newest(config.checkpoints) if place.first else None
        if ranks.first_decides(lambda: found is not None):
            trainer.restore(found)
        outcome = trainer.train(lambda: next(asked) == stop_after)
    return [trainer.step, str(outcome), trainer.last_metrics]


def trained(dataset: str, output: str, zero_stage: int, stops: list[int | None]) -> Checkpoint:
    config = config_of(dataset, output, zero_stage)
    for stop_after in stops:
        in_processes(2, train, config, stop_after)
    found = newest(config.checkpoints)
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", more_in_soak([1], [0]))
def test_a_frozen_layer_stays_and_the_rest_trains_and_goes_on(dataset, tmp_path, zero_stage):
    whole = trained(dataset, str(tmp_path / "whole"), zero_stage, [None])
    parts = trained(dataset, str(tmp_path / "parts"), zero_stage, [2, None])
    assert (whole.step, parts.step) == (4, 4)
    assert differing(all_tensors(whole), all_tensors(parts)) == []

    torch.manual_seed(config_of(dataset, "", 0).seed)
    new = frozen_stem().state_dict()
    model = whole.tensors("model")
    for name in ("stem.weight", "stem.bias"):
        assert torch.equal(model[f"online_encoder.{name}"], new[name])
        assert torch.equal(model[f"target_encoder.{name}"], new[name])
    for encoder in ("online_encoder", "target_encoder"):
        assert not torch.equal(model[f"{encoder}.top.weight"], new["top.weight"])
    of_adam = {name.rpartition("/")[0] for name in whole.tensors("optimizer")} - {""}
    online = {name for name in model if not name.startswith("target_")}
    assert online - of_adam == {"online_encoder.stem.weight", "online_encoder.stem.bias"}


def test_a_layer_that_was_frozen_when_saved_is_named():
    with pytest.raises(HvcError, match=r"the checkpoint has no stem.weight/exp_avg; it is of another"):
        saved({"top.weight/exp_avg": torch.zeros(1)}, "stem.weight/exp_avg")
