"""The run at MLflow that holds those of a pipeline together: they are shown below it."""

import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.pretrain.mlflow_client import connect, shown
from hvc.pretrain.run_at_server import GROUP, NewRun, find_run
from hvc.slurm.pipeline_state import PipelineState

_NOTE = "mlflow.note.content"
_log = logging.getLogger(__name__)


def open_run(state: PipelineState, uri: str, experiment: str, name: str, folder: str) -> None:
    """Make the run, or find it again, and note its id in the state; HvcError without an answer.

    Killed in between it is still made only once: the state has its key before the server has it.
    """
    if state.tracking_uri not in (None, public(uri)):
        state.run_id, state.run_key = None, uuid.uuid4().hex  # moved to another server
    client = connect(uri)
    try:
        wanted = NewRun(state.run_key, experiment, name, int(1000 * time.time()))
        state.run_id = find_run(client, state.run_id, wanted, uri)
        state.tracking_uri = public(uri)
        for key, value in {
            GROUP: "pipeline",
            "hvc.output": folder,
            "mlflow.source.name": "hvc submit",
        }.items():
            client.set_tag(state.run_id, key, value)
        client.update_run(state.run_id, status="RUNNING")
    except HvcError:
        raise
    except Exception as error:  # noqa: BLE001 - MLflow raises anything from requests to SQLAlchemy
        raise HvcError(
            f"MLflow at {public(uri)} stopped answering ({shown(error, uri)}); submit the pipeline again"
        ) from None


def close_run(
    uri: str, run_id: str, scores: Mapping[str, float], failed: Mapping[str, str], note: str
) -> bool:
    """End the run with its scores and what failed; False, and a warning, where MLflow does not answer."""
    try:
        client = connect(uri)
        for name, value in scores.items():
            client.log_metric(run_id, name, value)
        client.set_tag(run_id, "hvc.failed", ", ".join(failed) or "none")
        client.set_tag(run_id, _NOTE, note)
        client.set_terminated(run_id, "FAILED" if failed else "FINISHED")
    except Exception as error:  # noqa: BLE001 - the report is safe on disk
        _log.warning("not told to MLflow: %s; submit the pipeline again", _words(error, uri))
        return False
    return True


def _words(error: Exception, uri: str) -> Any:
    return str(error) if isinstance(error, HvcError) else shown(error, uri)
