"""From `runs:/ID[@STEP]` and `models:/NAME@ALIAS` to a trunk, by what MLflow knows of checkpoints.

Of a checkpoint only what evaluation uses is read and checked: COMPLETE (its sha256 is what the run
recorded), and the hash it gives for `encoder.safetensors`.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hvc.base.addresses import public
from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import open_store
from hvc.evaluation.trunks.pruned import refuse_removed
from hvc.evaluation.trunks.trunk import Trunk, open_encoder, trunk_of
from hvc.pretrain.checkpoints.marker import COMPLETE, DamagedError
from hvc.pretrain.tracking.mlflow_client import connect, shown
from hvc.pretrain.tracking.run_ids import whole_id
from hvc.pretrain.tracking.tracker import NEWEST_ALIAS, RECORDS

_RUN = re.compile(r"^runs:/([0-9a-zA-Z]+)(?:@(\d+))?$")
_MODEL = re.compile(r"^models:/([^@/]+)(?:@([^/]+)|/(\d+|latest))$")


class Recorded(NamedTuple):
    """A checkpoint that MLflow knows, not opened yet."""

    name: str
    """One that means this checkpoint for ever: `runs:/ID@STEP`, `models:/NAME/VERSION`."""
    record: dict[str, Any]
    """Its `address`, `sha256` and `step`."""
    run_id: str


def recorded(reference: str, tracking_uri: str) -> Recorded:
    """What MLflow knows by a `runs:/` or `models:/` name; HvcError when it knows nothing."""
    if reference.startswith("runs:/"):
        return _of_run(reference, tracking_uri)
    return _of_model(reference, tracking_uri)


def from_mlflow(reference: str, tracking_uri: str) -> Trunk:
    """The trunk of a recorded checkpoint; HvcError when it is not there, or not the one recorded.

    UsageError when training has removed it.
    """
    found = recorded(reference, tracking_uri)
    try:
        checkpoint = open_encoder(found.record["address"])
    except DamagedError:
        refuse_removed(reference, found.record["address"])
        raise
    if checkpoint.sha256 != found.record["sha256"]:
        raise HvcError(f"{found.record['address']}: not the checkpoint that run {found.run_id} recorded")
    return trunk_of(reference, checkpoint, found.run_id)


def _of_run(reference: str, tracking_uri: str) -> Recorded:
    match = _RUN.match(reference)
    if not match:
        raise UsageError(f"{reference}: write runs:/ID or runs:/ID@STEP")
    client = connect(tracking_uri)
    run_id, step = whole_id(client, match[1], tracking_uri), match[2]
    records = _records(client, run_id, tracking_uri)
    if step is not None:
        if int(step) not in records:
            raise HvcError(f"{reference}: recorded steps are {sorted(records) or 'none'}")
        return Recorded(f"runs:/{run_id}@{int(step)}", records[int(step)], run_id)
    for known in sorted(records, reverse=True):
        if open_store(records[known]["address"]).exists(COMPLETE):  # older ones may be pruned
            return Recorded(f"runs:/{run_id}@{known}", records[known], run_id)
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
            where, reason = public(tracking_uri), shown(error, tracking_uri)
            raise HvcError(
                f"no run {run_id} at {where} ({reason}); check the id, and --tracking-uri or "
                "MLFLOW_TRACKING_URI. Unless told otherwise, commands take outputs/mlflow.db of the folder "
                "that they are started in: --tracking-uri sqlite:////FOLDER/outputs/mlflow.db"
            ) from None
        records = [json.loads(path.read_text()) for path in local.glob("*.json")]
    return {int(record["step"]): record for record in records}


def _of_model(reference: str, tracking_uri: str) -> Recorded:
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
        reason = shown(error, tracking_uri)
        raise HvcError(f"{reference} is not at {public(tracking_uri)} ({reason})") from None
    record = {key: found.tags.get(f"hvc.{key}") for key in ("address", "sha256", "step")}
    if None in record.values():
        raise HvcError(f"{reference}: version {found.version} was not registered by hvc")
    return Recorded(f"models:/{name}/{found.version}", record, str(found.run_id))
