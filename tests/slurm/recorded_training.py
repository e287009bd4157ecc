"""The training stage, with a note of which samples each rank took at which step."""

import json
import os
from pathlib import Path

from hvc.base.stage import Provenance, Result, Stop
from hvc.pretrain import train
from hvc.pretrain.data.feed import Feeder
from hvc.pretrain.recipe import TrainConfig


def run(config: TrainConfig, stop: Stop, provenance: Provenance) -> Result:
    """Train; TAKEN is the folder of the notes."""
    rank = int(os.environ["RANK"])
    path = Path(os.environ["TAKEN"]) / f"attempt-{provenance.attempt}-rank-{rank}.jsonl"
    path.parent.mkdir(exist_ok=True)
    parts = Feeder.parts

    def recorded(self, batch):
        samples = batch.plan.samples.tolist() if batch.plan.weight else []
        with path.open("a") as file:
            file.write(json.dumps({"rank": rank, "step": batch.plan.step, "samples": samples}) + "\n")
        return parts(self, batch)

    Feeder.parts = recorded
    return train.run(config, stop, provenance)
