"""A rank that streams batches and does nothing with them but write down what they are."""

import json
import time
from pathlib import Path

from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.data.stream import stream
from hvc.pretrain.recipe import TrainConfig


def consume(
    config: TrainConfig,
    rank: int,
    world_size: int,
    first_step: int,
    last_step: int,
    log: Path,
    hold_at: int | None = None,
) -> None:
    """A rank that does nothing with its batches but write down what they are.

    Args:
        hold_at: After so many it waits for whoever kills it.
    """
    places = {"rank": rank, "world_size": world_size, "first_step": first_step, "last_step": last_step}
    with log.open("w") as file:
        for done, batch in enumerate(stream(config, load_data(config), **places)):
            if done == hold_at:
                time.sleep(600)
            samples = batch.plan.samples.tolist() if batch.plan.weight else []
            assert len(batch.views[0]) == len(batch.plan.samples)
            file.write(json.dumps([batch.plan.step, samples]) + "\n")
            file.flush()
            time.sleep(0.01)
