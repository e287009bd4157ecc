"""From what a user names (`runs:/ID`, `models:/NAME@ALIAS`, path, `s3://`, baseline) to a trunk's weights.

Of a checkpoint only what evaluation uses is read and checked: COMPLETE (its sha256 is what the run
recorded), the hash it gives for `encoder.safetensors`, and where the run has to be learnt from the
checkpoint, `state.json`. The other 140 MB stay where they are, unread.
"""

import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvc.base.addresses import public
from hvc.base.errors import HvcError, UsageError
from hvc.base.files import read_json
from hvc.base.storage import MissingError, open_store, sha256_file
from hvc.evaluation.tracked import RUN_NOTE, connect, shown
from hvc.pretrain.checkpoint import Checkpoint, DamagedError, complete_steps, open_checkpoint
from hvc.pretrain.marker import COMPLETE, ENCODER, STATE
from hvc.pretrain.tracking import NEWEST_ALIAS, RECORDS

UNTRAINED = "baseline:untrained"
_RUN = re.compile(r"^runs:/([0-9a-zA-Z]+)(?:@(\d+))?$")
_MODEL = re.compile(r"^models:/([^@/]+)(?:@([^/]+)|/(\d+|latest))$")


@dataclass(frozen=True)
class Trunk:
    """A trunk that can be evaluated, and where its scores belong."""

    reference: str
    """As the user wrote it."""
    encoder: Path | None
    """`encoder.safetensors`; None for the untrained baseline. One that comes from a bucket is a temporary
    file, there as long as this object."""
    sha256: str
    """Of the weights' file; names the results folder."""
    step: int
    run_id: str | None = None
    """The MLflow run that made it, if any is known."""
    held: object = field(default=None, repr=False, compare=False)
    """Keeps the temporary file."""


def resolve(reference: str, tracking_uri: str) -> Trunk:
    """Find the trunk; HvcError when the run, step, alias or file is not there or is altered."""
    if reference == UNTRAINED:
        return Trunk(reference, None, "untrained", 0)
    if reference.startswith("baseline:"):
        raise UsageError(f"{reference}: the only baseline is {UNTRAINED}")
    if reference.startswith("runs:/"):
        return _from_run(reference, tracking_uri)
    if reference.startswith("models:/"):
        return _from_model(reference, tracking_uri)
    return _from_path(reference)


def _from_run(reference: str, tracking_uri: str) -> Trunk:
    match = _RUN.match(reference)
    if not match:
        raise UsageError(f"{reference}: write runs:/ID or runs:/ID@STEP")
    run_id, step = match[1], match[2]
    client = connect(tracking_uri)
    records = _records(client, run_id, tracking_uri)
    if step is not None:
        if int(step) not in records:
            raise HvcError(f"{reference}: recorded steps are {sorted(records) or 'none'}")
        return _from_record(reference, records[int(step)], run_id)
    for known in sorted(records, reverse=True):
        if open_store(records[known]["address"]).exists(COMPLETE):  # older ones may be pruned
            return _from_record(reference, records[known], run_id)
    if records:
        where = records[max(records)]["address"]
        raise HvcError(f"{reference}: none of its checkpoints is within reach (newest: {where})")
    raise HvcError(f"{reference}: the run has no complete checkpoint yet")


def _records(client: Any, run_id: str, tracking_uri: str) -> dict[int, dict[str, Any]]:
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        try:
            if not client.list_artifacts(run_id, RECORDS):
                return {}
            local = Path(client.download_artifacts(run_id, RECORDS, folder))
        except mlflow.exceptions.MlflowException as error:
            where, reason = public(tracking_uri), _reason(error, tracking_uri)
            raise HvcError(
                f"no run {run_id} at {where} ({reason}); check the id, and --tracking-uri or "
                "MLFLOW_TRACKING_URI. Unless told otherwise, training records into mlflow.db beside its "
                "output folder: --tracking-uri sqlite:////FOLDER/mlflow.db"
            ) from None
        records = [json.loads(path.read_text()) for path in local.glob("*.json")]
    return {int(record["step"]): record for record in records}


def _reason(error: Exception, tracking_uri: str) -> str:
    return (shown(error, tracking_uri).splitlines() or [type(error).__name__])[0]


def _from_record(reference: str, record: dict[str, Any], run_id: str) -> Trunk:
    checkpoint = open_checkpoint(record["address"], files=[ENCODER])
    if checkpoint.sha256 != record["sha256"]:
        raise HvcError(f"{record['address']}: not the checkpoint that run {run_id} recorded")
    return _trunk(reference, checkpoint, run_id)


def _trunk(reference: str, checkpoint: Checkpoint, run_id: str | None) -> Trunk:
    digest = checkpoint.marker.files[ENCODER].sha256  # checked: it was opened with this file
    return Trunk(reference, checkpoint.path(ENCODER), digest, checkpoint.step, run_id, checkpoint)


def _from_model(reference: str, tracking_uri: str) -> Trunk:
    match = _MODEL.match(reference)
    if not match:
        raise UsageError(f"{reference}: write models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = match[1], match[2], match[3]
    if "latest" in (alias, version):  # MLflow keeps that word for itself
        alias, version = NEWEST_ALIAS, None
    import mlflow

    client = connect(tracking_uri)
    try:
        if version is None:
            found = client.get_model_version_by_alias(name, alias)
        else:
            found = client.get_model_version(name, version)
    except mlflow.exceptions.MlflowException as error:
        reason = _reason(error, tracking_uri)
        raise HvcError(f"{reference} is not at {public(tracking_uri)} ({reason})") from None
    record = {key: found.tags.get(f"hvc.{key}") for key in ("address", "sha256", "step")}
    if None in record.values():
        raise HvcError(f"{reference}: version {found.version} was not registered by hvc")
    return _from_record(reference, record, str(found.run_id))


def _from_path(reference: str) -> Trunk:
    if reference.startswith("s3://"):
        return _from_bucket(reference)
    path = Path(reference)
    if path.is_dir():
        if (path / "checkpoints").is_dir():
            raise UsageError(f"{path} is a run's folder; name one of the checkpoints in it")
        return _from_checkpoint(reference)
    if not path.is_file():
        raise HvcError(
            f"{reference}: no such checkpoint; give runs:/ID, models:/NAME@ALIAS, a checkpoint (folder or "
            f"s3://bucket/prefix), an encoder.safetensors, or {UNTRAINED}"
        )
    return _from_file(reference, path, None)


def _from_checkpoint(reference: str) -> Trunk:
    checkpoint = open_checkpoint(reference, files=[ENCODER, STATE])
    return _trunk(reference, checkpoint, _run_of(checkpoint))


def _run_of(checkpoint: Checkpoint) -> str | None:
    """The run that made a checkpoint: by its own word, else by the note in the run's folder.

    A checkpoint may have been written before the server had made the run.
    """
    state = checkpoint.state
    known = state.get("run_id") or (state.get("tracking") or {}).get("run_id")
    if not known and not checkpoint.address.startswith("s3://"):
        note = read_json(Path(checkpoint.address).parent.parent / RUN_NOTE) or {}
        known = note.get("run_id")
    return str(known) if known else None


def _from_bucket(reference: str) -> Trunk:
    if not reference.endswith(".safetensors"):
        try:
            return _from_checkpoint(reference)
        except DamagedError:
            steps = complete_steps(reference)
            if steps:
                last = f"{reference.rstrip('/')}/step-{steps[-1]:08d}"
                raise UsageError(
                    f"{reference} holds several checkpoints; name one of them, e.g. {last}"
                ) from None
            raise
    place, _, name = reference.rpartition("/")
    folder = tempfile.TemporaryDirectory(prefix="hvc-encoder-")
    path = Path(folder.name, name)
    try:
        with path.open("wb") as file:
            open_store(place).fetch(name, file)
    except MissingError as error:
        raise HvcError(f"{reference}: no such checkpoint ({error})") from None
    except OSError as error:
        raise HvcError(f"cannot copy {reference} to {path}: {error.strerror}; free some space") from None
    return _from_file(reference, path, folder)


def _from_file(reference: str, path: Path, held: object) -> Trunk:
    from hvc.pretrain.encoder_file import read_encoder

    _, metadata = read_encoder(path)
    return Trunk(reference, path, sha256_file(path), metadata.step, held=held)
