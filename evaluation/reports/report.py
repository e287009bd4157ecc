"""Scores and pictures go back to the run that made the checkpoint, without changing its state."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.reports.logged import Data, note_data, report_folder
from hvc.evaluation.trunks.method import Method
from hvc.evaluation.trunks.tracked import shown
from hvc.pretrain.tracking.mlflow_client import connect, experiment_id

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

    scores = report["scores"] if report["headline"] is not None else {}
    points = [  # their time is that of the results, so that two who send the same make one point
        Metric(f"{report['metrics']}/{name}", value, report["evaluated"], step)
        for name, value in scores.items()
    ]
    run = client.get_run(run_id)  # a run that is not there is noticed before anything is sent
    there = {point.key: _newest(client, run_id, point) for point in points}
    if points and all(_is_very(there[point.key], point) for point in points):
        return  # of this very evaluation, so its files are there, too
    folder, data = report_folder(report["metrics"], step), Data(report["data_digest"], report["sequences"])
    if points:
        note_data(client, run, report["metrics"], data)
    for path in pictures:
        client.log_artifact(run_id, str(path), folder)
    client.log_dict(run_id, report, f"{folder}/scores.json")
    new = [_newer(there[point.key], point) for point in points if not _same(there[point.key], point)]
    if new:
        client.log_batch(run_id, metrics=new)
    if points:
        note_data(client, client.get_run(run_id), report["metrics"], data)


def _newest(client: Any, run_id: str, point: Any) -> Any:
    """The newest point of the same metric and step that the run has, or None."""
    points = [item for item in client.get_metric_history(run_id, point.key) if item.step == point.step]
    return max(points, key=lambda item: item.timestamp, default=None)


def _newer(found: Any, point: Any) -> Any:
    """The point, later than another score of its step: results of files that are back are older than it."""
    from mlflow.entities import Metric

    if found is None or found.timestamp < point.timestamp:
        return point
    return Metric(point.key, point.value, found.timestamp + 1, point.step)


def _is_very(found: Any, point: Any) -> bool:
    return _same(found, point) and bool(found.timestamp == point.timestamp)


def _same(found: Any, point: Any) -> bool:
    """Whether it is the same score, so that another evaluation adds nothing."""
    if found is None:
        return False
    return bool(found.value == point.value or (found.value != found.value and point.value != point.value))


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
