"""Checkpoints in MLflow's model registry: one version each, and the alias that training moves."""

from typing import Any

from hvc.pretrain.tracking.mlflow_client import is_missing

NEWEST_ALIAS = "newest"
"""The alias that training moves. MLflow reserves `latest`, which `models:/NAME@latest` still means."""
_TAGS = ("address", "sha256", "step", "time")


def register(client: Any, model: str, run_id: str, source: str, record: dict[str, Any]) -> None:
    """Make a checkpoint a version of the registered model, once, and move the alias forward to it.

    Args:
        model: Name of the registered model.
        source: What the version says it was made from, `runs:/ID/...`.
        record: `address`, `sha256`, `step` and `time` (ms since 1970) of the checkpoint.
    """
    tags = {f"hvc.{key}": str(record[key]) for key in _TAGS}
    version = _known_version(client, model, run_id, tags)
    if version is None:
        if not client.search_registered_models(f"name = '{model}'"):
            client.create_registered_model(model)
        version = client.create_model_version(model, source, run_id, tags=tags, await_creation_for=0)
    current = _version_at(client, model, NEWEST_ALIAS)
    if current is None or _is_later(tags, run_id, current):
        client.set_registered_model_alias(model, NEWEST_ALIAS, version.version)


def aliased_steps(client: Any, model: str, run_id: str) -> set[int]:
    """Steps of a run's checkpoints that any alias of the registered model points to."""
    try:
        aliases = client.get_registered_model(model).aliases
    except Exception as error:
        if is_missing(error):
            return set()
        raise
    aliased = {str(number) for number in aliases.values()}
    versions = _versions_of(client, model, run_id)
    return {int(item.tags["hvc.step"]) for item in versions if str(item.version) in aliased}


def _versions_of(client: Any, model: str, run_id: str) -> list[Any]:
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'", page_token=token)
        found += [item for item in page if str(item.tags.get("hvc.step", "")).isdecimal()]
        token = page.token
        if not token:
            return found


def _known_version(client: Any, model: str, run_id: str, tags: dict[str, str]) -> Any:
    """The version that an earlier attempt made, whose answer was lost, if there is one."""
    for item in _versions_of(client, model, run_id):
        if all(item.tags.get(key) == tags[key] for key in ("hvc.step", "hvc.sha256")):
            return item
    return None


def _version_at(client: Any, model: str, alias: str) -> Any:
    try:
        return client.get_model_version_by_alias(model, alias)
    except Exception as error:
        # MLflow calls an unknown alias an invalid parameter.
        if is_missing(error) or getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
            return None
        raise


def _is_later(tags: dict[str, str], run_id: str, current: Any) -> bool:
    """Within a run the higher step counts, between runs what was made later."""
    if current.run_id == run_id:
        return int(tags["hvc.step"]) > int(current.tags.get("hvc.step") or -1)
    made = current.tags.get("hvc.time") or current.creation_timestamp or 0
    return int(tags["hvc.time"]) > int(made)
