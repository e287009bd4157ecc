"""A rank that streams batches and does nothing with them but write down what they are."""

import json
import time
from pathlib import Path

from hvc.pretrain.dataset import load_data
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.stream import stream


def consume(
    config: TrainConfig, rank: int, world_size: int, first_step: int, last_step: int, log: Path
) -> None:
    """A rank that does nothing with its batches but write down what they are."""
    places = {"rank": rank, "world_size": world_size, "first_step": first_step, "last_step": last_step}
    with log.open("w") as file:
        for batch in stream(config, load_data(config), **places):
            samples = batch.plan.samples.tolist() if batch.plan.weight else []
            assert len(batch.views[0]) == len(batch.plan.samples)
            file.write(json.dumps([batch.plan.step, samples]) + "\n")
            file.flush()
            time.sleep(0.01)
