"""Evaluation of what a training run of the pipeline has made by then: its newest checkpoint is looked up
when the job begins, not when it was submitted.
"""

import json
from pathlib import Path
from typing import Any

from hvc.base.config import Config
from hvc.base.errors import HvcError
from hvc.base.files import write_atomic
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.slurm.pipeline_outputs import SCORES, is_trained


class LateConfig(Config):
    """An evaluation, and where its checkpoint is going to be."""

    evaluate: dict[str, Any]
    """Config of the evaluation; its `checkpoint` counts where `run` is null."""
    output: str
    """Its output folder."""
    task_digest: str
    """Of the task."""
    run: str | None = None
    """Output folder of the training run."""
    checkpoints: str | None = None
    """Where that run's checkpoints are."""
    part: int | None = None
    """Which share of the sequences, from 0; null scores."""


def run(config: LateConfig, stop: Stop, provenance: Provenance) -> Result:
    """Find the checkpoint, evaluate it, and leave the scores as `scores.json` in the output folder.

    HvcError where the training run has not finished.
    """
    from hvc.evaluation.evaluate import run as evaluate
    from hvc.evaluation.evaluate_config import EvaluateConfig
    from hvc.evaluation.reports.report_values import brief

    values = {**config.evaluate, "part": config.part}
    if config.run is not None:
        values["checkpoint"] = newest_of(config.run, str(config.checkpoints))
    chosen = EvaluateConfig.parse(values, where="config of evaluate")
    result = evaluate(chosen, stop, provenance)
    if result.outcome is Outcome.DONE and config.part is None:
        sent = _is_sent(result.report)
        record = {"digest": config.task_digest, **brief(result.report), "at_mlflow": sent}
        write_atomic(Path(config.output) / SCORES, json.dumps(record, indent=1, default=str) + "\n")
    return result


def advance(config: LateConfig) -> int:
    """How far it has come, for who starts it again."""
    from hvc.evaluation.advance import advance as finished
    from hvc.evaluation.evaluate_config import EvaluateConfig

    return finished(EvaluateConfig.parse(config.evaluate, where="config of evaluate"))


def newest_of(run: str, checkpoints: str) -> str:
    """The newest checkpoint of a finished training run, as `hvc evaluate` takes it.

    By its address where the run's note lies beside it; out of a bucket by the run's id, where one is known.
    """
    from hvc.pretrain.checkpoints.checkpoint import complete_steps, step_name
    from hvc.pretrain.tracking.run_note import RunNote

    if not is_trained(run):
        raise HvcError(
            f"the training run in {run} has not finished, so there is nothing to evaluate; see its log, "
            "and submit the pipeline again"
        )
    steps = complete_steps(checkpoints)
    if not steps:
        raise HvcError(f"{checkpoints}: no complete checkpoint of the run in {run}")
    note = RunNote.read(Path(run))
    beside = Path(checkpoints) == Path(run) / "checkpoints"
    if note is not None and note.run_id and note.closed and not beside:
        return f"runs:/{note.run_id}@{steps[-1]}"
    return f"{checkpoints.rstrip('/')}/{step_name(steps[-1])}"


def _is_sent(report: dict[str, Any]) -> bool:
    """Whether MLflow has the scores; those of a bare trunk file belong to no run."""
    return report.get("run_id") is not None or "tracking_uri" not in report
