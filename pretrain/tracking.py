"""What MLflow is told of a run, and how checkpoints are found again.

Metrics go to `metrics.jsonl` in the output folder first and to MLflow from a thread of its own, so a
slow or dead server costs no training step. Rank 0 only.
"""

import getpass
import json
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.base.files import read_json, write_atomic
from hvc.base.stage import Outcome, Provenance
from hvc.pretrain.checkpoint import Checkpoint, complete_steps, step_name, verified
from hvc.pretrain.dataset import SourceData, TrainingData
from hvc.pretrain.journal import Journal
from hvc.pretrain.mlflow_client import connect, default_uri, experiment_id, first_line
from hvc.pretrain.recipe import TrainConfig

NEWEST_ALIAS = "newest"
"""The alias that training moves. MLflow reserves `latest`, which `models:/NAME@latest` still means."""
FINISH_SECONDS = 120.0
NOTE = "run.json"
"""In the output folder: which run it belongs to."""
RECORDS = "checkpoints"
"""Artifact folder of a run that holds one small JSON record per checkpoint."""
_STATUS = {Outcome.DONE: "FINISHED", Outcome.STOPPED: "SCHEDULED"}
_log = logging.getLogger(__name__)


class Tracker:
    """One MLflow run, the same one over all attempts that share an output folder.

    Whatever is told here waits in a queue, so training never waits for a server.
    """

    def __init__(self, config: TrainConfig, data: TrainingData, provenance: Provenance) -> None:
        self._config, self._folder = config, config.folder
        self.uri = config.tracking.uri or default_uri(self._folder.parent)
        self._client = connect(self.uri)
        self.journal = Journal(self._folder / "metrics.jsonl")
        try:
            self.run_id = self._find_run() or self._create_run(data)
            self._client.update_run(self.run_id, status="RUNNING")
            for key, value in {"attempt": str(provenance.attempt), **provenance.labels}.items():
                self._client.set_tag(self.run_id, f"hvc.{key}", value)
        except Exception as error:  # noqa: BLE001 - see connect
            raise HvcError(
                f"cannot open a run in experiment {config.tracking.experiment!r} at {public(self.uri)}: "
                f"{first_line(error)}"
            ) from None
        self._queue: queue.Queue[tuple[str, Callable[[], object]] | None] = queue.Queue()
        self._lost: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._push, name="mlflow", daemon=True)
        self._thread.start()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record metrics of a step: on disk now, at MLflow soon."""
        self.journal.append(step, values)
        now = int(time.time() * 1000)
        self._queue.put(("metric records", lambda: self._send_metrics(step, values, now)))

    def picture(self, name: str, image: Image.Image) -> None:
        """Store a picture as `pictures/NAME.png`."""
        file = f"pictures/{name}.png"
        self._queue.put(
            ("pictures", lambda: self._client.log_image(self.run_id, image, artifact_file=file))
        )

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Record a complete checkpoint: address, hash, step; register it and move the alias."""
        self._queue.put(("checkpoint records", lambda: self._record(checkpoint)))

    def encoder(self, path: Path) -> None:
        """Store the final trunk as an artifact of the run."""
        self._queue.put(("trunks", lambda: self._client.log_artifact(self.run_id, str(path), "encoder")))

    def repair(self, root: Path) -> None:
        """Record the complete checkpoints below `root` that the run lacks.

        A kill between a checkpoint and its record, or a server that was away, leaves such ones.
        """
        known = {Path(item.path).stem for item in self._client.list_artifacts(self.run_id, RECORDS)}
        for step in complete_steps(root):
            if step_name(step) not in known:
                self.checkpoint(verified(root, step))

    def finish(self, outcome: Outcome | None) -> None:
        """Send what is queued and close the run; None means it failed."""
        self._queue.put(("final states", lambda: self._close(outcome)))
        self._queue.put(None)
        self._thread.join(timeout=FINISH_SECONDS)
        waiting = self._thread.is_alive()
        if self._lost or waiting:
            lost = ", ".join(f"{count} {what}" for what, count in self._lost.items())
            _log.warning(
                "did not reach MLflow: %s; metrics are in %s, and checkpoints are recorded when the same "
                "command runs again",
                lost or "what was still queued",
                self.journal.path,
            )
        elif outcome is Outcome.DONE:
            self._write_note(closed=True)

    def _close(self, outcome: Outcome | None) -> None:
        status = _STATUS[outcome] if outcome else "FAILED"
        if status == "SCHEDULED":
            self._client.update_run(self.run_id, status=status)
        else:
            self._client.set_terminated(self.run_id, status)

    def _push(self) -> None:
        while (item := self._queue.get()) is not None:
            what, send = item
            try:
                send()
            except Exception as error:  # noqa: BLE001 - see connect
                if not self._lost:
                    _log.warning("MLflow is away (%s); training goes on", first_line(error))
                self._lost[what] += 1

    def _send_metrics(self, step: int, values: dict[str, float], now: int) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def _find_run(self) -> str | None:
        known = read_json(self._folder / NOTE)
        if known is None or "run_id" not in known:
            return None
        if known.get("tracking_uri") != public(self.uri):
            _log.warning(
                "tracking moved from %s to %s: a new run begins",
                known.get("tracking_uri"),
                public(self.uri),
            )
            return None
        try:
            run = self._client.get_run(known["run_id"])
        except Exception as error:  # noqa: BLE001 - see connect
            _log.warning("run %s is gone (%s): a new run begins", known["run_id"], first_line(error))
            return None
        return str(run.info.run_id)

    def _create_run(self, data: TrainingData) -> str:
        where = experiment_id(self._client, self._config.tracking.experiment, self.uri)
        tags = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "hvc train"}
        run = self._client.create_run(where, run_name=self._config.name, tags=tags)
        self.run_id = str(run.info.run_id)
        self._describe(self.run_id, data)
        self._write_note(closed=False)  # last: a run that is found again is described whole
        return self.run_id

    def _write_note(self, *, closed: bool) -> None:
        note = {
            "run_id": self.run_id,
            "tracking_uri": public(self.uri),
            "experiment": self._config.tracking.experiment,
            "closed": closed,
        }
        write_atomic(self._folder / NOTE, json.dumps(note, indent=1))

    def _describe(self, run_id: str, data: TrainingData) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)[:6000]) for key, value in flatten(self._config.resolved()).items()]
        self._client.log_batch(run_id, params=params)
        self._client.log_text(run_id, self._config.to_yaml(), "recipe.yaml")
        self._client.log_inputs(run_id, [_dataset_input(source) for source in data.sources])
        for package in ("hvc", "torch", "deepspeed"):
            self._client.set_tag(run_id, f"version.{package}", version(package))
        self._client.set_tag(run_id, "hvc.method", self._config.method_digest())
        self._client.set_tag(run_id, "hvc.dataset", data.digest)

    def _record(self, checkpoint: Checkpoint) -> None:
        record = {
            "version": 1,
            "step": checkpoint.step,
            "address": str(checkpoint.folder),
            "sha256": checkpoint.sha256,
            "method": self._config.method_digest(),
        }
        self._register(record)
        self._client.set_tag(self.run_id, "hvc.checkpoint.step", str(checkpoint.step))
        # Last: the record says that all of this was done.
        self._client.log_dict(self.run_id, record, f"{RECORDS}/{step_name(checkpoint.step)}.json")

    def _register(self, record: dict[str, Any]) -> None:
        name = self._config.tracking.model
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        tags = {f"hvc.{key}": str(record[key]) for key in ("address", "sha256", "step")}
        source = f"runs:/{self.run_id}/{RECORDS}"
        model = self._client.create_model_version(name, source, self.run_id, tags=tags)
        self._client.set_registered_model_alias(name, NEWEST_ALIAS, model.version)


def _dataset_input(source: SourceData) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    manifest = source.manifest
    where = {"uri": source.store.address, "digest": manifest.digest, "weight": source.weight}
    dataset = Dataset(
        name=manifest.name,
        digest=manifest.digest[:32],  # MLflow allows 36 characters; the source holds all 64
        source_type="hvc-manifest",
        source=json.dumps(where),
        profile=json.dumps({"samples": manifest.samples, "shards": len(manifest.shards)}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def settle(config: TrainConfig, data: TrainingData, provenance: Provenance, found: Checkpoint) -> None:
    """Tell MLflow what it lacks of a run that has finished; a server that is away is only a warning."""
    if (read_json(config.folder / NOTE) or {}).get("closed"):
        return
    try:
        tracker = Tracker(config, data, provenance)
    except HvcError as error:
        _log.warning("the run is finished, but MLflow does not know it: %s", error)
        return
    tracker.repair(found.folder.parent)
    if config.tracking.upload_encoder != "none":
        tracker.encoder(found.encoder)
    tracker.finish(Outcome.DONE)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
