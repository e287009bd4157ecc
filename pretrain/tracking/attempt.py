"""What is told of an attempt when it begins: recipe, data, code, machine and who started it."""

import re
from datetime import UTC, datetime
from typing import Any

from hvc.base.stage import Provenance
from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.output import planned_steps
from hvc.pretrain.recipe import TrainConfig


def attempt_line(
    config: TrainConfig, data: TrainingData, provenance: Provenance, number: int, facts: dict[str, str]
) -> dict[str, Any]:
    """The journal line of an attempt.

    Args:
        number: Of the attempt, from 1, over all restarts of the run.
        facts: As `provenance_facts.all_facts` gives them, and more.
    """
    # MLflow takes letters, digits and a few signs in names.
    labels = {re.sub(r"[^\w.-]", "_", key): str(value) for key, value in provenance.labels.items()}
    own = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": facts["code.sha256"][:12],
        "host": facts["hardware.host"],
        **labels,
    }
    tags = {f"hvc.attempt.{number}.{key}": value for key, value in own.items()}
    tags |= {f"hvc.{key}": value for key, value in labels.items()} | facts
    tags |= {
        "hvc.attempt": str(number),
        "hvc.method": config.method_digest(),
        "hvc.dataset": data.digest,
        "hvc.output": str(config.folder),
        "hvc.total_steps": str(planned_steps(config, data)),
    }
    if config.tracking.parent:
        tags["mlflow.parentRunId"] = config.tracking.parent  # the UI shows it below that one
    if "code.commit" in facts:
        tags["mlflow.source.git.commit"] = facts["code.commit"]  # the UI shows it
    return {
        "number": number,
        "name": config.name,
        "experiment": config.tracking.experiment,
        "tags": tags,
        "params": {key: str(value) for key, value in flatten(config.resolved()).items()},
        "recipe": config.to_yaml(),
        "inputs": [
            {
                "name": source.manifest.name,
                "digest": source.manifest.digest,
                "uri": source.store.address,
                "weight": source.weight,
                "samples": source.manifest.samples,
                "shards": len(source.manifest.shards),
            }
            for source in data.sources
        ],
        "code": facts["code.sha256"],
    }


def code_drift(before: list[dict[str, Any]], number: int, code: str) -> str:
    """What to say if the code is not the last attempt's; empty if it is, or if there was none."""
    last = before[-1] if before else {}
    if last.get("code") in (None, code):
        return ""
    return f"attempt {last['number']}: {last['code'][:12]}, attempt {number}: {code[:12]}"


def checkpoint_drift(resumed: dict[str, Any], code: str) -> str:
    """The same for the checkpoint that training goes on from, by its `step` and `code`."""
    if resumed.get("code") in (None, code):
        return ""
    return f"step {resumed['step']}: {resumed['code'][:12]}, now: {code[:12]}"


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
