"""What MLflow is told of a run, and how checkpoints are found again.

Metrics go to `metrics.jsonl` in the output folder first and to MLflow from a thread of its own, so a
slow or dead server costs no training step. Rank 0 only.
"""

import getpass
import json
import logging
import os
import queue
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance
from hvc.data_prep.manifest import Manifest
from hvc.pretrain.checkpoint import Checkpoint, step_name
from hvc.pretrain.recipe import TrainConfig

NEWEST_ALIAS = "newest"
"""The alias that training moves. MLflow reserves `latest`, which `models:/NAME@latest` still means."""
RECORDS = "checkpoints"
"""Artifact folder of a run that holds one small JSON record per checkpoint."""
_STATUS = {Outcome.DONE: "FINISHED", Outcome.STOPPED: "SCHEDULED"}
_CLIENT_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default waits minutes for a dead server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for our results
}
_log = logging.getLogger(__name__)


def default_uri(folder: Path) -> str:
    """MLFLOW_TRACKING_URI, else SQLite in `folder`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.absolute()}/mlflow.db"


def connect(uri: str) -> Any:
    """An MlflowClient that gives up soon; HvcError when the server or database does not answer."""
    for key, value in _CLIENT_DEFAULTS.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = mlflow.MlflowClient(uri)
    try:
        client.search_experiments(max_results=1)
    except Exception as error:  # noqa: BLE001 - MLflow raises anything from requests to SQLAlchemy
        raise HvcError(
            f"MLflow at {uri} does not answer: {_first_line(error)}\n"
            "Start the server, correct tracking.uri (or MLFLOW_TRACKING_URI), or leave both out to "
            "record into a local mlflow.db."
        ) from None
    return client


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


class Journal:
    """`metrics.jsonl`: one line per record, the truth about a run's metrics."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, step: int) -> None:
        """Drop records after `step`: they are about to be made again."""
        kept = [record for record in self.records() if record["step"] <= step]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        temporary.replace(self.path)

    def append(self, step: int, values: dict[str, float]) -> None:
        """Add one record."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "time": time.time(), **values}) + "\n")

    def records(self) -> list[dict[str, float]]:
        """All whole records (a killed run may leave half a last line)."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().split("\n")
        return [json.loads(line) for line in lines if line.endswith("}")]


class Tracker:
    """One MLflow run, the same one over all attempts that share an output folder."""

    def __init__(self, config: TrainConfig, manifest: Manifest, provenance: Provenance) -> None:
        self._config, self._folder = config, config.folder
        self.uri = config.tracking.uri or default_uri(self._folder.parent)
        self._client = connect(self.uri)
        self.journal = Journal(self._folder / "metrics.jsonl")
        self.run_id = self._find_run() or self._create_run(manifest)
        self._client.update_run(self.run_id, status="RUNNING")
        self._tag("hvc.attempt", str(provenance.attempt))
        for key, value in provenance.labels.items():
            self._tag(f"hvc.{key}", value)
        self._queue: queue.Queue[tuple[int, dict[str, float]] | None] = queue.Queue()
        self._unsent = 0
        self._thread = threading.Thread(target=self._push, name="mlflow", daemon=True)
        self._thread.start()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Record metrics of a step: on disk now, at MLflow soon."""
        self.journal.append(step, values)
        self._queue.put((step, values))

    def picture(self, name: str, image: Image.Image) -> None:
        """Store a picture as `pictures/NAME.png`; a server that is away costs the picture only."""
        try:
            self._client.log_image(self.run_id, image, artifact_file=f"pictures/{name}.png")
        except Exception as error:  # noqa: BLE001 - see connect
            _log.warning("picture %s not stored at MLflow: %s", name, _first_line(error))

    def checkpoint(self, checkpoint: Checkpoint, method: str) -> None:
        """Record a complete checkpoint: address, hash, step; register it and move the alias."""
        record = {
            "version": 1,
            "step": checkpoint.step,
            "address": str(checkpoint.folder),
            "sha256": checkpoint.sha256,
            "method": method,
        }
        try:
            self._client.log_dict(self.run_id, record, f"{RECORDS}/{step_name(checkpoint.step)}.json")
            self._tag("hvc.checkpoint.step", str(checkpoint.step))
            self._register(record)
        except Exception as error:  # noqa: BLE001 - see connect
            _log.warning(
                "checkpoint %s is safe on disk but not recorded at MLflow: %s",
                checkpoint.folder,
                _first_line(error),
            )

    def encoder(self, path: Path) -> None:
        """Store the final trunk as an artifact of the run."""
        try:
            self._client.log_artifact(self.run_id, str(path), "encoder")
        except Exception as error:  # noqa: BLE001 - see connect
            _log.warning("%s not stored at MLflow: %s", path, _first_line(error))

    def finish(self, outcome: Outcome | None) -> None:
        """Send what is queued and close the run; None means it failed."""
        self._queue.put(None)
        self._thread.join(timeout=60)
        if self._unsent:
            _log.warning(
                "%d metric records did not reach MLflow; they are in %s", self._unsent, self.journal.path
            )
        try:
            status = _STATUS[outcome] if outcome else "FAILED"
            if status == "SCHEDULED":
                self._client.update_run(self.run_id, status=status)
            else:
                self._client.set_terminated(self.run_id, status)
        except Exception as error:  # noqa: BLE001 - see connect
            _log.warning("run %s not closed at MLflow: %s", self.run_id, _first_line(error))

    def _find_run(self) -> str | None:
        note = self._folder / "run.json"
        if not note.exists():
            return None
        known = json.loads(note.read_text())
        if known["tracking_uri"] != self.uri:
            _log.warning("tracking moved from %s to %s: a new run begins", known["tracking_uri"], self.uri)
            return None
        try:
            run = self._client.get_run(known["run_id"])
        except Exception as error:  # noqa: BLE001 - see connect
            _log.warning("run %s is gone (%s): a new run begins", known["run_id"], _first_line(error))
            return None
        return str(run.info.run_id)

    def _create_run(self, manifest: Manifest) -> str:
        experiment = self._config.tracking.experiment
        where = experiment_id(self._client, experiment, self.uri)
        tags = {"mlflow.user": getpass.getuser(), "mlflow.source.name": "hvc train"}
        run = self._client.create_run(where, run_name=self._config.name, tags=tags)
        run_id = str(run.info.run_id)
        note = {"run_id": run_id, "tracking_uri": self.uri, "experiment": experiment}
        (self._folder / "run.json").write_text(json.dumps(note, indent=1))
        self._describe(run_id, manifest)
        return run_id

    def _describe(self, run_id: str, manifest: Manifest) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        params = [Param(key, str(value)[:6000]) for key, value in flatten(self._config.resolved()).items()]
        self._client.log_batch(run_id, params=params)
        self._client.log_text(run_id, self._config.to_yaml(), "recipe.yaml")
        source = json.dumps({"uri": self._config.data, "digest": manifest.digest})
        dataset = Dataset(
            name=manifest.name,
            digest=manifest.digest[:32],  # MLflow allows 36 characters; the source holds all 64
            source_type="hvc-manifest",
            source=source,
            profile=json.dumps({"samples": manifest.samples, "shards": len(manifest.shards)}),
        )
        tags = [InputTag("mlflow.data.context", "training")]
        self._client.log_inputs(run_id, [DatasetInput(dataset, tags)])
        for package in ("hvc", "torch", "deepspeed"):
            self._client.set_tag(run_id, f"version.{package}", version(package))
        self._client.set_tag(run_id, "hvc.method", self._config.method_digest())
        self._client.set_tag(run_id, "hvc.dataset", manifest.digest)

    def _register(self, record: dict[str, Any]) -> None:
        name = self._config.tracking.model
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        tags = {f"hvc.{key}": str(record[key]) for key in ("address", "sha256", "step")}
        source = f"runs:/{self.run_id}/{RECORDS}"
        model = self._client.create_model_version(name, source, self.run_id, tags=tags)
        self._client.set_registered_model_alias(name, NEWEST_ALIAS, model.version)

    def _push(self) -> None:
        from mlflow.entities import Metric

        while (item := self._queue.get()) is not None:
            step, values = item
            now = int(time.time() * 1000)
            try:
                metrics = [Metric(key, value, now, step) for key, value in values.items()]
                self._client.log_batch(self.run_id, metrics=metrics)
            except Exception as error:  # noqa: BLE001 - see connect
                if not self._unsent:
                    _log.warning("MLflow is away (%s); training goes on", _first_line(error))
                self._unsent += 1

    def _tag(self, key: str, value: str) -> None:
        self._client.set_tag(self.run_id, key, value)


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The id of an experiment, made if it is not there yet."""
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):  # else artifacts would land in the current folder
        location = str(Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts")
    kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens its training views
    return str(client.create_experiment(name, artifact_location=location, tags=kind))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
