"""Scores and pictures go back to the run that made the checkpoint, without changing its state."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.method import Method
from hvc.evaluation.tracked import connect, shown
from hvc.pretrain.mlflow_client import experiment_id

_log = logging.getLogger(__name__)


def log_to_run(
    config: EvaluateConfig, method: Method, uri: str, report: dict[str, Any], pictures: Sequence[Path]
) -> dict[str, Any]:
    """Log metrics below `report["metrics"]` at the checkpoint's step, the report and the pictures.

    Scores of a merged pair go to the run of the first. A baseline gets a run of its own, the same one
    every time for a seed. A bare trunk file belongs to no run: nothing is logged. Without MLflow the
    results stay in their folder and the log says so.

    Returns the run's id (None where nothing was logged) and, without its password, the tracking URI.
    """
    trunk = method.first
    if trunk.run_id is None and trunk.kind == "file":
        return {"run_id": None}
    try:
        client = connect(uri)
        run_id = trunk.run_id or _baseline_run(client, config, trunk.kind, uri)
        _log_report(client, run_id, trunk.step, report, pictures)
    except Exception as error:  # noqa: BLE001 - MLflow raises anything; the scores are safe on disk
        again = "the same command again logs them, and computes nothing anew"
        if isinstance(error, HvcError) or trunk.run_id is None:
            _log.warning("scores not logged to MLflow: %s\n%s", shown(error, uri), again)
        else:
            where, why = public(uri), shown(error, uri)
            _log.warning("scores not logged: run %s is not at %s (%s); %s", trunk.run_id, where, why, again)
        return {"run_id": None, "tracking_uri": public(uri)}
    return {"run_id": run_id, "tracking_uri": public(uri)}


def _log_report(
    client: Any, run_id: str, step: int, report: dict[str, Any], pictures: Sequence[Path]
) -> None:
    """Files first and metrics last, in one request: a run that has the score has all of it."""
    from mlflow.entities import Metric

    folder = f"{report['metrics']}/step-{step:08d}"
    client.get_run(run_id)  # a run that is not there is noticed before anything is sent
    for path in pictures:
        client.log_artifact(run_id, str(path), folder)
    client.log_dict(run_id, report, f"{folder}/scores.json")
    if report["headline"] is None:
        return
    scores = {f"{report['metrics']}/{name}": value for name, value in report["scores"].items()}
    new = {
        name: value for name, value in scores.items() if not _is_there(client, run_id, name, step, value)
    }
    # The time is that of the results: the same results sent by two processes at once are one point.
    points = [Metric(name, value, report["evaluated"], step) for name, value in new.items()]
    if points:
        client.log_batch(run_id, metrics=points)


def _is_there(client: Any, run_id: str, name: str, step: int, value: float) -> bool:
    """Whether this score is the newest of its step already, so that a repeated evaluation adds nothing."""
    points = [point for point in client.get_metric_history(run_id, name) if point.step == step]
    newest = max(points, key=lambda point: point.timestamp, default=None)
    return newest is not None and _same(newest.value, value)


def _same(found: float, value: float) -> bool:
    return found == value or (found != found and value != value)


def _baseline_run(client: Any, config: EvaluateConfig, kind: str, uri: str) -> str:
    experiment = experiment_id(client, config.experiment, uri)
    baseline = config.checkpoint + (f"/seed-{config.seed}" if kind == "untrained" else "")
    wanted = f"tags.`hvc.baseline` = '{baseline}' and attributes.status = 'FINISHED'"
    known = client.search_runs([experiment], wanted, max_results=1)
    if known:
        return str(known[0].info.run_id)
    run = client.create_run(experiment, run_name=config.checkpoint, tags={"hvc.baseline": baseline})
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)
