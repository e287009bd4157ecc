"""Checkpoints of an experiment's runs as MLflow's registry has them, and how they scored."""

from dataclasses import dataclass
from typing import Any

from hvc.base.errors import HvcError


@dataclass(frozen=True)
class Registered:
    """A version that training registered."""

    model: str
    version: str
    run_id: str
    step: int
    address: str
    """Of the checkpoint."""
    time: int
    """When it was written, ms since 1970."""
    tags: dict[str, str]

    @property
    def name(self) -> str:
        """As `hvc evaluate` takes it."""
        return f"models:/{self.model}/{self.version}"


def find_experiment(client: Any, name: str) -> str:
    """The id of an experiment; HvcError, with the names that there are, when it is not there."""
    found = client.get_experiment_by_name(name)
    if found is None:
        known = ", ".join(sorted(item.name for item in client.search_experiments())) or "none"
        raise HvcError(f"no experiment {name!r} yet; there are: {known}")
    return str(found.experiment_id)


def registered(client: Any, experiment_id: str, seen: dict[str, str | None]) -> list[Registered]:
    """All versions that training registered of the experiment's runs, the newest first.

    Args:
        seen: experiment of each run that was asked for already, None for a deleted run; is added to.
    """
    found, token = [], None
    while True:
        page = client.search_model_versions(max_results=1000, page_token=token)
        found += [item for item in page if _is_ours(item)]
        token = page.token
        if not token:
            break
    wanted = [
        _read(item) for item in found if experiment_of(client, str(item.run_id), seen) == experiment_id
    ]
    return sorted(wanted, key=lambda item: (item.time, item.step), reverse=True)


def version_at(client: Any, model: str, number: str) -> Registered | None:
    """One version of a model; None where training did not register it."""
    version = client.get_model_version(model, number)
    return _read(version) if _is_ours(version) else None


def scores_by_step(client: Any, run_id: str, metric: str) -> dict[int, float]:
    """The newest value of a metric at each step of a run."""
    newest: dict[int, Any] = {}
    for point in client.get_metric_history(run_id, metric):
        if point.step not in newest or point.timestamp >= newest[point.step].timestamp:
            newest[point.step] = point
    return {step: float(point.value) for step, point in newest.items()}


def _is_ours(version: Any) -> bool:
    tags = version.tags
    return bool(version.run_id) and "hvc.address" in tags and tags.get("hvc.step", "").isdecimal()


def _read(version: Any) -> Registered:
    tags = dict(version.tags)
    return Registered(
        model=str(version.name),
        version=str(version.version),
        run_id=str(version.run_id),
        step=int(tags["hvc.step"]),
        address=tags["hvc.address"],
        time=int(tags.get("hvc.time") or version.creation_timestamp or 0),
        tags=tags,
    )


def experiment_of(client: Any, run_id: str, seen: dict[str, str | None]) -> str | None:
    """The id of a run's experiment, None for a deleted run; `seen` as in `registered`."""
    if run_id not in seen:
        seen[run_id] = _experiment_of(client, run_id)
    return seen[run_id]


def _experiment_of(client: Any, run_id: str) -> str | None:
    from hvc.pretrain.tracking.mlflow_client import is_missing

    try:
        run = client.get_run(run_id)
    except Exception as error:
        if is_missing(error):
            return None
        raise
    return str(run.info.experiment_id) if run.info.lifecycle_stage == "active" else None
