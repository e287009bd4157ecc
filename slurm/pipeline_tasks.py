"""From a pipeline's file to its tasks: configs checked, values handed on, digests and outputs named."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from hvc.base.errors import UsageError
from hvc.data_prep.shard_config import ShardConfig
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.propagation.protocol import Protocol
from hvc.pretrain.recipe import TrainConfig
from hvc.slurm.pipeline_config import EvaluateStage, PipelineConfig, ShardStage, TrainStage
from hvc.slurm.pipeline_inputs import Inputs
from hvc.slurm.pipeline_late import LateConfig
from hvc.slurm.pipeline_plan import SHOWN, Task, digest_of
from hvc.slurm.sweep import Values, label_of, member_names

_VERSION = 1
"""Of digests; another one, due when a default changes, means that everything runs again."""
_SHARD_SPREAD = {"output", "workers", "parts", "part"}
_EVALUATE_SPREAD = {
    *("checkpoint", "output", "tracking_uri", "device", "workers", "parts", "part", "experiment", "preset"),
    *("merge", "data"),
}
"""What does not decide a result, or is in the digest by its contents."""
_NOWHERE = "baseline:untrained"
"""Stands for the checkpoint that a training run is going to make, while a config is checked."""


def tasks_of(
    pipeline: PipelineConfig, cluster: str | None, tracking_uri: str | None, inputs: Inputs
) -> list[Task]:
    """All tasks, each behind what it needs.

    Args:
        pipeline: what to do.
        cluster: cluster file of stages that name none.
        tracking_uri: MLflow for all stages; None leaves it to recipes and the jobs' environment.
        inputs: looks at what comes from outside.

    Raises UsageError for a config that is wrong, or members of a sweep that are the same.
    """
    made: list[Task] = []
    if pipeline.shard is not None:
        made.append(_shard(pipeline, pipeline.shard, inputs))
    if pipeline.train is not None:
        made += _train(pipeline, pipeline.train, made[0] if made else None, tracking_uri, inputs)
    for number, stage in enumerate(pipeline.evaluate):
        trained = [task for task in made if task.stage == "train"]
        made += _evaluate(pipeline, stage, number, trained, tracking_uri, inputs)
    _refuse_same(made)
    chosen = [task if task.cluster else replace(task, cluster=cluster or "") for task in made]
    without = sorted({task.step for task in chosen if not task.cluster})
    if without:
        raise UsageError(
            f"{', '.join(without)}: no cluster; give --cluster FILE, or `cluster:` in the stage"
        )
    return chosen


def _shard(pipeline: PipelineConfig, stage: ShardStage, inputs: Inputs) -> Task:
    where = "shard.config"
    config = ShardConfig.parse({"output": "-", **stage.config}, where=where)
    if config.output != "-":
        raise UsageError(f"{where}: output is named by the pipeline; set shard.output")
    if {"parts", "part"} & stage.config.keys():
        raise UsageError(f"{where}: parts stands beside config, not in it")
    values = config.resolved()
    for entry in values["inputs"]:
        entry["address"] = _absolute(entry["address"])
    listings = [inputs.listing(entry["address"]) for entry in values["inputs"]]
    usual = ShardConfig.parse({"inputs": values["inputs"][:1], "output": "-"}).resolved()
    decisive = {"inputs": values["inputs"]} | unlike(values, usual, _SHARD_SPREAD)
    digest = digest_of(_VERSION, "shard", decisive, listings)
    output = _output(pipeline, stage.output, "datasets", config.dataset_name, digest)
    values |= {"output": output, "parts": stage.parts, "name": config.dataset_name}
    cluster = stage.cluster or ""
    return Task("shard", "shard", "shard", digest, output, values, parts=stage.parts, cluster=cluster)


def _train(
    pipeline: PipelineConfig, stage: TrainStage, data: Task | None, uri: str | None, inputs: Inputs
) -> list[Task]:
    members: list[Values] = pipeline.sweep.all_members if pipeline.sweep else [{}]
    bases = [recipe_of(stage, values, data.output if data else None, uri) for values in members]
    names = member_names(bases[0].name, members) if pipeline.sweep else [bases[0].name]
    return [
        _training(
            pipeline, stage, config, name, f"train/{label_of(values)}" if values else "train", data, inputs
        )
        for config, name, values in zip(bases, names, members, strict=True)
    ]


def recipe_of(stage: TrainStage, values: Values, data: str | None, uri: str | None) -> TrainConfig:
    """The recipe with a stage's and a member's settings over it, then `data` and `uri` where given."""
    settings = {**stage.config, **values}
    if data is not None:
        settings["data"] = data
    if uri is not None:
        settings["tracking.uri"] = uri
    overrides = [f"{key}={json.dumps(value)}" for key, value in _flat(settings).items()]
    if stage.recipe is None:
        return TrainConfig.parse({}, overrides, where="train.config")
    return TrainConfig.load(stage.recipe, overrides)


def _training(
    pipeline: PipelineConfig,
    stage: TrainStage,
    config: TrainConfig,
    name: str,
    key: str,
    data: Task | None,
    inputs: Inputs,
) -> Task:
    if config.output:
        raise UsageError("train: output is named by the pipeline; set train.output beside config")
    taken = (
        [[inputs.dataset(source.address), source.weight] for source in config.data] if data is None else []
    )
    decisive = unlike(config.method(), TrainConfig.parse({"data": "-"}).method())
    digest = digest_of(_VERSION, "train", decisive, data.digest if data else taken)
    output = _output(pipeline, stage.output, "runs", name, digest)
    values = config.resolved() | {"name": name, "output": output}
    if config.checkpoint.address:
        values["checkpoint"]["address"] = f"{config.checkpoint.address.rstrip('/')}/{Path(output).name}"
    need, cluster = data.key if data else None, stage.cluster or ""
    return Task(key, "train", "train", digest, output, values, need, cluster=cluster)


def _evaluate(
    pipeline: PipelineConfig,
    stage: EvaluateStage,
    number: int,
    trained: list[Task],
    uri: str | None,
    inputs: Inputs,
) -> list[Task]:
    where = f"evaluate.{number}.config"
    given = stage.config.get("checkpoint")
    values: dict[str, Any] = {**stage.config, "checkpoint": given or _NOWHERE, "tracking_uri": uri}
    config = EvaluateConfig.parse(values, where=where)
    if config.output or {"parts", "part"} & stage.config.keys():
        raise UsageError(f"{where}: output and parts stand beside config, not in it")
    values = config.resolved() | {"data": _absolute(config.data)}
    usual = EvaluateConfig.parse({"checkpoint": _NOWHERE, "benchmark": config.benchmark, "data": "-"})
    without = usual.resolved() | {"benchmark": None, "protocol": Protocol().resolved()}
    decisive = unlike(values, without, _EVALUATE_SPREAD)
    taken: list[Any] = [inputs.listing(values["data"])]
    if config.merge is not None:
        values["merge"], digest = inputs.checkpoint(config.merge, _asked(uri, config.merge))
        taken.append(digest)
    step = f"evaluate-{config.benchmark}" + (f"-{number + 1}" if _is_twice(pipeline, config) else "")
    made = []
    for task in trained if given is None else [None]:
        if task is None:
            values["checkpoint"], source = inputs.checkpoint(
                config.checkpoint, _asked(uri, config.checkpoint)
            )
        else:
            source = task.digest
        digest = digest_of(_VERSION, "evaluate", decisive, taken, source)
        output = _output(pipeline, stage.output, "scores", step.removeprefix("evaluate-"), digest)
        parts = 1 if len(trained) > 1 and task else stage.parts
        late = LateConfig(
            evaluate=values | {"output": output, "parts": parts},
            output=output,
            task_digest=digest,
            run=task.output if task else None,
            checkpoints=TrainConfig.parse(task.config).checkpoints if task else None,
        )
        member = task.key.removeprefix("train") if task else ""
        made.append(
            Task(
                step + member,
                step,
                "evaluate",
                digest,
                output,
                late.resolved(),
                task.key if task else None,
                parts,
                stage.cluster or "",
            )
        )
    return made


def _is_twice(pipeline: PipelineConfig, config: EvaluateConfig) -> bool:
    return Counter(stage.config.get("benchmark") for stage in pipeline.evaluate)[config.benchmark] > 1


def _asked(uri: str | None, reference: str) -> str:
    from hvc.evaluation.trunks.tracked import tracking_uri

    return tracking_uri(uri, reference)


def _output(pipeline: PipelineConfig, root: str | None, kind: str, name: str, digest: str) -> str:
    folder = f"{name}-{digest[:SHOWN]}"
    return f"{_absolute(root)}/{folder}" if root else str(pipeline.place / kind / folder)


def _refuse_same(tasks: list[Task]) -> None:
    """UsageError for two tasks that would do the same work in the same place."""
    seen: dict[tuple[str, str], str] = {}
    for task in tasks:
        other = seen.setdefault((task.stage, task.digest), task.key)
        if other != task.key:
            raise UsageError(f"{other} and {task.key} are the same work; take one of them out")
    keys = Counter(task.key for task in tasks)
    for key, count in keys.items():
        if count > 1:
            raise UsageError(f"{key} is there {count} times; let the members' settings differ")


def unlike(values: dict[str, Any], usual: dict[str, Any], spread: Collection[str] = ()) -> dict[str, Any]:
    """Values that are not the usual ones, so that a setting of a later version changes no digest.

    Args:
        values: resolved.
        usual: the defaults.
        spread: keys that are left out.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        other = usual.get(key)
        if key in spread or value == other:
            continue
        both = isinstance(value, dict) and isinstance(other, dict)
        found[key] = unlike(value, other) if both else value  # type: ignore[arg-type]
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections as dotted keys; an empty one says nothing."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _absolute(address: str) -> str:
    # A path would make `s3:/bucket` of an address.
    return address.rstrip("/") if "://" in address else str(Path(address).absolute())
