"""A sweep as the command line has it: a pipeline of training runs and their evaluations."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvc.base.config import apply_override
from hvc.base.errors import UsageError
from hvc.pretrain.recipe import TrainConfig
from hvc.slurm.pipeline_config import PipelineConfig
from hvc.slurm.sweep import parse_grid


def sweep_pipeline(
    recipe: Path,
    overrides: Sequence[str],
    grid: Sequence[str],
    evaluate: Sequence[str],
    name: str | None,
    evaluate_cluster: Path | None,
) -> PipelineConfig:
    """The pipeline of a sweep.

    Args:
        recipe: what all members have in common.
        overrides: `key=value`, over the recipe, for all members.
        grid: `key=a,b`, for every key that they differ in.
        evaluate: `BENCHMARK DATA [key=value ...]`, for every benchmark.
        name: of the sweep; None takes the recipe's.
        evaluate_cluster: cluster file of evaluations; None is that of training.
    """
    values = parse_grid(grid)
    if not values:
        raise UsageError("a sweep needs --grid key=value,value")
    common = TrainConfig.load(recipe, list(overrides))
    return PipelineConfig.parse(
        {
            "name": name or f"{common.name}-sweep",
            "train": {"recipe": str(recipe), "config": _with({}, overrides)},
            "sweep": {"grid": values},
            "evaluate": [
                {"cluster": evaluate_cluster and str(evaluate_cluster), "config": _evaluation(text)}
                for text in evaluate
            ],
        },
        where="hvc submit sweep",
    )


def _evaluation(text: str) -> dict[str, Any]:
    try:
        benchmark, data, *overrides = shlex.split(text)
    except ValueError:
        raise UsageError(
            f"--evaluate {text!r}: write it as 'BENCHMARK DATA [key=value ...]', e.g. 'davis2017 DAVIS'"
        ) from None
    return _with({"benchmark": benchmark, "data": data}, overrides)


def _with(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for text in overrides:
        apply_override(config, text)
    return config
