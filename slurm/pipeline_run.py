"""The run at MLflow that holds those of a pipeline together: they are shown below it."""

import logging
import time
import uuid
from collections.abc import Mapping

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.pretrain.tracking.mlflow_client import answering, connect
from hvc.pretrain.tracking.run_at_server import GROUP, NewRun, find_run
from hvc.slurm.pipeline_state import PipelineState

ADVICE = "submit the pipeline again"
_NOTE = "mlflow.note.content"
_log = logging.getLogger(__name__)


def open_run(state: PipelineState, uri: str, experiment: str, name: str, folder: str) -> None:
    """Make the run, or find it again, and note its id in the state; HvcError without an answer.

    Killed in between it is still made only once: the state has its key before the server has it.
    """
    if state.tracking_uri not in (None, public(uri)):
        state.run_id, state.run_key = None, uuid.uuid4().hex  # moved to another server
    client = connect(uri)
    with answering(uri, ADVICE):
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


def close_run(
    uri: str, run_id: str, scores: Mapping[str, float], failed: Mapping[str, str], note: str
) -> bool:
    """End the run with its scores and what failed; False, and a warning, where MLflow does not answer."""
    try:
        client = connect(uri)
        with answering(uri, ADVICE):
            for name, value in scores.items():
                client.log_metric(run_id, name, value)
            client.set_tag(run_id, "hvc.failed", ", ".join(failed) or "none")
            client.set_tag(run_id, _NOTE, note)
            client.set_terminated(run_id, "FAILED" if failed else "FINISHED")
    except HvcError as error:  # the report is safe on disk
        _log.warning("MLflow does not have it; the same command sends it once more: %s", error)
        return False
    return True
