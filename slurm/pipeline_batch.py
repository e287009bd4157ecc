"""Submits one batch of a pipeline: a job, or an array with a job file per task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvc.data_prep.shard_config import ShardConfig
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.pretrain.recipe import TrainConfig
from hvc.slurm.checks import Check
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.jobfile import JobFile
from hvc.slurm.pipeline_config import PipelineConfig
from hvc.slurm.pipeline_plan import Batch, Task
from hvc.slurm.places import Places, places_of
from hvc.slurm.preflight import preflight
from hvc.slurm.stages import StagePaths, find
from hvc.slurm.submit import (
    check_tasks,
    executor_for,
    keep,
    make_folder,
    next_folder,
    note,
    queue,
)

_LATE, _REPORT = "hvc.slurm.pipeline_late", "hvc.slurm.pipeline_report"
_OWN = {
    "evaluate": StagePaths("evaluate", f"{_LATE}:run", f"{_LATE}:LateConfig", progress=f"{_LATE}:advance"),
    "report": StagePaths("report", f"{_REPORT}:run", f"{_REPORT}:ReportConfig"),
}
"""Stages that a pipeline wraps or adds."""


class Sender:
    """Knows the clusters of a pipeline, and submits its batches there."""

    def __init__(self, config: PipelineConfig, parent: Path, clusters: dict[str, ClusterConfig]) -> None:
        """What all batches have in common.

        Args:
            config: the pipeline's, for the snapshots.
            parent: its folder.
            clusters: by file.
        """
        self._config, self._parent, self._clusters = config, parent, clusters

    def folder_for(self, batch: Batch) -> Path:
        """A new submission folder."""
        return make_folder(self._cluster(batch).place, batch.tasks[0].stage)

    def check(self, batch: Batch) -> list[Check]:
        """What stands in its way; what a task before it makes is not looked for."""
        task, cluster = batch.tasks[0], self._cluster(batch)
        folder = next_folder(cluster.place, task.stage)
        script = self._executor(batch, cluster, folder, None).text(tasks=self._size(batch))
        return preflight(places_of_task(task), cluster, script, waits=bool(batch.after))

    def script(self, batch: Batch, after: str | None, job_id: str) -> str:
        """The sbatch script, without submitting anything; `job_id` stands for the id it would get."""
        cluster = self._cluster(batch)
        folder = next_folder(cluster.place, batch.tasks[0].stage)
        text = self._executor(batch, cluster, folder, after).text(tasks=self._size(batch))
        return f"# {job_id}: {', '.join(task.key for task in batch.tasks)}\n{text}"

    def send(self, batch: Batch, folder: Path, after: str | None) -> str:
        """Submit a batch from its folder; Slurm's id."""
        first, cluster = batch.tasks[0], self._cluster(batch)
        paths = stage_of(first)
        check_tasks(paths, cluster)
        snapshot = keep(folder, self._config, cluster)
        configs = self._configs(batch)
        alone = len(configs) == 1
        files = [folder / ("job.json" if alone else f"job-{number}.json") for number in range(len(configs))]
        for path, values in zip(files, configs, strict=True):
            JobFile.of(paths, values, cluster, snapshot).write(path)
        job_id = queue(self._executor(batch, cluster, folder, after), files)
        size = None if alone else len(configs)
        note(
            folder,
            job_id,
            paths,
            places_of_task(first),
            cluster,
            name=self._name(batch).removeprefix("hvc-"),
            parent=self._parent,
            parent_name=self._config.name,
            array=size,
        )
        return job_id

    def _executor(self, batch: Batch, cluster: ClusterConfig, folder: Path, after: str | None) -> Any:
        name, array = self._name(batch), self._size(batch) > 1
        if after is None:
            return executor_for(cluster, name, folder, array=array)
        # What waits for a job that failed would stay in the queue for ever.
        strict = cluster.model_copy(update={"sbatch": {"kill_on_invalid_dep": "yes", **cluster.sbatch}})
        return executor_for(strict, name, folder, array=array, dependency=after)

    def _cluster(self, batch: Batch) -> ClusterConfig:
        task, cluster = batch.tasks[0], self._clusters[batch.tasks[0].cluster]
        single = {"nodes": 1, "tasks_per_node": 1}
        if task.stage == "report":  # a few files and requests
            return cluster.model_copy(update=single | {"gpus_per_node": 0, "memory_gb": None})
        if cluster.executor == "local" and not stage_of(task).parallel:  # one file is for all stages there
            return cluster.model_copy(update=single)
        return cluster

    def _name(self, batch: Batch) -> str:
        step = batch.tasks[0].step
        return f"hvc-{step}" if batch.role == "whole" else f"hvc-{step}-{batch.role}"

    def _size(self, batch: Batch) -> int:
        return batch.tasks[0].parts if batch.role == "parts" else len(batch.tasks)

    def _configs(self, batch: Batch) -> Sequence[dict[str, Any]]:
        if batch.role != "parts":
            return [task.config for task in batch.tasks]
        task = batch.tasks[0]
        return [{**task.config, "part": part} for part in range(task.parts)]


def stage_of(task: Task) -> StagePaths:
    """What runs a task."""
    return _OWN.get(task.stage) or find(task.stage)


def places_of_task(task: Task) -> Places:
    """What it reads and writes."""
    if task.stage == "evaluate":
        return places_of("evaluate", EvaluateConfig.parse(task.config["evaluate"]))
    if task.stage == "report":
        return Places(name="report", outputs=[task.output])
    model = ShardConfig if task.stage == "shard" else TrainConfig
    return places_of(task.stage, model.parse(task.config))
