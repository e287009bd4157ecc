"""A sweep as the command line has it: a pipeline of training runs and their evaluations."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

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
            "train": {"recipe": str(recipe), "config": _settings(overrides)},
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
    config: dict[str, Any] = {"benchmark": benchmark, "data": data}
    for key, value in _settings(overrides).items():
        *sections, last = key.split(".")
        inner = config
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return config


def _settings(overrides: Sequence[str]) -> dict[str, Any]:
    settings = {}
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals or not key:
            raise UsageError(f"override {text!r}: write it as key=value, e.g. steps=100")
        settings[key] = yaml.safe_load(raw)
    return settings
