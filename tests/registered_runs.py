"""Runs with whole trunks as checkpoints, recorded and registered as training does it, without training."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from checkpoint_data import snapshot
from weights_files import trunk_state

from hvc.base.storage import open_store
from hvc.pretrain.checkpoints.writer import write_checkpoint
from hvc.pretrain.tracking.mlflow_client import client_of, experiment_id
from hvc.pretrain.tracking.registry import register
from hvc.pretrain.tracking.tracker import RECORDS


class RegisteredRun:
    """One run of an experiment at a server, to which checkpoints can be added."""

    def __init__(self, uri: str, folder: Path, experiment: str = "watched", model: str = "trunks") -> None:
        self.uri, self.folder, self.model = uri, folder, model
        self.client = client_of(uri)
        where = experiment_id(self.client, experiment, uri)
        self.run_id = str(self.client.create_run(where, run_name=folder.name).info.run_id)
        self.client.update_run(self.run_id, status="RUNNING")

    def save(self, step: int) -> dict[str, Any]:
        """A checkpoint whose trunk follows from the step, and what MLflow is told of it."""
        made = dataclasses.replace(snapshot(step, run_id=self.run_id), encoder=trunk_state(seed=step))
        checkpoint = write_checkpoint(open_store(self.folder / "checkpoints"), made)
        record = {"version": 1, "step": step, "address": checkpoint.address, "sha256": checkpoint.sha256}
        source = f"runs:/{self.run_id}/{RECORDS}"
        stamped = record | {"time": int(1000 * time.time())}
        register(self.client, self.model, self.run_id, source, stamped)
        self.client.log_dict(self.run_id, record, f"{RECORDS}/step-{step:08d}.json")
        return record

    def points(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric, all of them."""
        history = self.client.get_metric_history(self.run_id, metric)
        return sorted((point.step, point.value) for point in history)

    def aliased_step(self, alias: str) -> int | None:
        """The step that an alias of the model points to."""
        number = self.client.get_registered_model(self.model).aliases.get(alias)
        if number is None:
            return None
        return int(self.client.get_model_version(self.model, str(number)).tags["hvc.step"])
