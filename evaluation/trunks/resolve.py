"""From what a user names (`runs:/ID`, `models:/NAME@ALIAS`, path, `s3://`, baseline) to a trunk."""

from hvc.base.errors import UsageError
from hvc.evaluation.trunks.at_mlflow import from_mlflow, recorded
from hvc.evaluation.trunks.in_files import from_path
from hvc.evaluation.trunks.pruned import warning_of
from hvc.evaluation.trunks.trunk import Kind, Trunk

BASELINES: dict[str, Kind] = {
    "baseline:untrained": "untrained",
    "baseline:pixels": "pixels",
    "baseline:first-mask": "first-mask",
}
_AT_MLFLOW = ("runs:/", "models:/")


def resolve(reference: str, tracking_uri: str) -> Trunk:
    """Find the trunk; HvcError when the run, step, alias or file is not there or is altered."""
    if reference in BASELINES:
        kind = BASELINES[reference]
        return Trunk(reference, None, kind, 0, kind=kind)
    if reference.startswith("baseline:"):
        raise UsageError(f"{reference}: the baselines are {', '.join(BASELINES)}")
    if reference.startswith(_AT_MLFLOW):
        return from_mlflow(reference, tracking_uri)
    return from_path(reference)


def pinned(reference: str, tracking_uri: str) -> str:
    """A name that means the same checkpoint later, too: `runs:/ID` and aliases move on."""
    if reference.startswith(_AT_MLFLOW):
        return recorded(reference, tracking_uri).name
    return reference


def warning_before_waiting(name: str, tracking_uri: str) -> str | None:
    """What to say when an evaluation of a `pinned` name is queued; None where nothing is to fear."""
    if not name.startswith(_AT_MLFLOW):
        return None
    found = recorded(name, tracking_uri)
    return warning_of(found.run_id, int(found.record["step"]), tracking_uri)
