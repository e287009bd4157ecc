"""Scores and pictures go back to the run that made the checkpoint, without changing its state."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.evaluation.resolve import Trunk
from hvc.evaluation.tracked import connect, shown
from hvc.pretrain.mlflow_client import experiment_id

if TYPE_CHECKING:
    from hvc.evaluation.evaluate import EvaluateConfig

_log = logging.getLogger(__name__)


def log_to_run(
    config: "EvaluateConfig", trunk: Trunk, uri: str, report: dict[str, Any], pictures: Sequence[Path]
) -> dict[str, Any]:
    """Log metrics below `report["metrics"]` at the checkpoint's step, the report and the pictures.

    A baseline gets a run of its own, the same one every time for a seed. A bare trunk file belongs
    to no run: nothing is logged. Without MLflow the results stay in their folder and the log says so.

    Returns the run's id (None where nothing was logged) and, without its password, the tracking URI.
    """
    if trunk.run_id is None and trunk.encoder is not None:
        return {"run_id": None}
    try:
        client = connect(uri)
        run_id = trunk.run_id or _baseline_run(client, config, uri)
        _log_report(client, run_id, trunk, report, pictures)
    except Exception as error:  # noqa: BLE001 - MLflow raises anything; the scores are safe on disk
        if isinstance(error, HvcError) or trunk.run_id is None:
            _log.warning("scores not logged to MLflow: %s", shown(error, uri))
        else:
            where, why = public(uri), shown(error, uri)
            _log.warning("scores not logged: run %s is not at %s (%s)", trunk.run_id, where, why)
        return {"run_id": None, "tracking_uri": public(uri)}
    return {"run_id": run_id, "tracking_uri": public(uri)}


def _log_report(
    client: Any, run_id: str, trunk: Trunk, report: dict[str, Any], pictures: Sequence[Path]
) -> None:
    folder = f"{report['metrics']}/step-{trunk.step:08d}"
    if isinstance(report["scores"], dict):
        for name, value in report["scores"].items():
            client.log_metric(run_id, f"{report['metrics']}/{name}", value, step=trunk.step)
    client.log_dict(run_id, report, f"{folder}/scores.json")
    for path in pictures:
        client.log_artifact(run_id, str(path), folder)


def _baseline_run(client: Any, config: "EvaluateConfig", uri: str) -> str:
    experiment = experiment_id(client, config.experiment, uri)
    baseline = f"{config.checkpoint}/seed-{config.seed}"
    wanted = f"tags.`hvc.baseline` = '{baseline}' and attributes.status = 'FINISHED'"
    known = client.search_runs([experiment], wanted, max_results=1)
    if known:
        return str(known[0].info.run_id)
    run = client.create_run(experiment, run_name=config.checkpoint, tags={"hvc.baseline": baseline})
    client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)
