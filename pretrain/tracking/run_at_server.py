"""A run at an MLflow server: found again by its key, or made."""

import getpass
import logging
from typing import Any, NamedTuple

from hvc.base.addresses import public
from hvc.pretrain.tracking.mlflow_client import experiment_id, first_line, is_missing

RUN_KEY = "hvc.run_key"
"""Tag that names a run before any server does, so that it is never made twice."""
GROUP = "hvc.group"
"""Tag of a run that only holds other runs together: nothing was trained or scored in it."""
_log = logging.getLogger(__name__)


class NewRun(NamedTuple):
    """What a run that is not there yet is made from."""

    key: str
    experiment: str
    name: str
    start: int
    """ms since 1970."""


def find_run(client: Any, run_id: str | None, wanted: NewRun, uri: str) -> str:
    """The id of the run: the one noted, else the one with its key, else a new one."""
    if run_id is not None:
        if is_active(client, run_id):
            return run_id
        _log.warning(
            "run %s is gone from %s; the whole journal goes to a new run there", run_id, public(uri)
        )
    where = experiment_id(client, wanted.experiment, uri)
    known = _with_key(client, where, wanted.key)
    if not known:
        tags = {RUN_KEY: wanted.key, "mlflow.user": _user(), "mlflow.source.name": "hvc train"}
        client.create_run(where, start_time=wanted.start, run_name=wanted.name, tags=tags)
        known = _with_key(client, where, wanted.key)  # an earlier request may have been late, too
    for run in known[1:]:
        if not run.data.metrics:
            _log.info("run %s, made by a request whose answer was lost, is removed", run.info.run_id)
            client.delete_run(run.info.run_id)
    return str(known[0].info.run_id)


def is_active(client: Any, run_id: str) -> bool:
    """Whether the server has the run and it is not deleted."""
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except Exception as error:
        if is_missing(error) or "not found" in first_line(error):
            return False
        raise


def last_step(client: Any, run_id: str, name: str) -> int:
    """The highest step at which the server has a metric; -1 where it has none."""
    return max((point.step for point in client.get_metric_history(run_id, name)), default=-1)


def _with_key(client: Any, experiment: str, key: str) -> list[Any]:
    """The runs with that key, those with metrics first, then the older ones."""
    runs = client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{key}'", max_results=50)
    return sorted(runs, key=lambda run: (not run.data.metrics, run.info.start_time, run.info.run_id))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"
