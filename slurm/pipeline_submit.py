"""Submits what of a pipeline is not done and not under way: plan, then one batch after the other.

The state is written before and after each submission, so that the same command goes on after a kill.
"""

import os
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hvc.base.errors import HvcError
from hvc.data_prep.lock import sole_writer
from hvc.pretrain.recipe import TrainConfig
from hvc.slurm.checks import Check
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.known_jobs import Answer, KnownJob, ask_controller
from hvc.slurm.pipeline_batch import Sender
from hvc.slurm.pipeline_config import PipelineConfig
from hvc.slurm.pipeline_inputs import Inputs
from hvc.slurm.pipeline_outputs import done_of
from hvc.slurm.pipeline_plan import Batch, Dependency, Task, batches, dependency_text
from hvc.slurm.pipeline_report import is_reported, report_task
from hvc.slurm.pipeline_state import PipelineState, Sent
from hvc.slurm.pipeline_tasks import recipe_of, tasks_of
from hvc.slurm.preflight import environment_of
from hvc.slurm.submit import refuse

_LOCK = ".pipeline.lock"


@dataclass
class PipelineReport:
    """What was, or in a dry run would be, submitted."""

    folder: Path
    """The pipeline's."""
    run_id: str | None
    """The run at MLflow that holds the others; None in a dry run."""
    tasks: list[dict[str, Any]]
    """`key`, `state` (done, under way, submitted, to submit), `job_id`, `after`, `output`."""
    scripts: list[str]
    """The sbatch scripts of a dry run, word for word."""
    configs: list[list[dict[str, Any]]]
    """The resolved configs of a dry run, of all tasks of each script."""
    findings: list[Check] = field(default_factory=list)
    """What the checks before found: warnings, and in a dry run failures as well."""
    remarks: list[str] = field(default_factory=list)
    """What else there is to know."""

    def values(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {**vars(self), "folder": str(self.folder), "findings": [vars(one) for one in self.findings]}


def submit_pipeline(
    config: PipelineConfig, cluster: str | None, *, dry_run: bool = False, unchecked: bool = False
) -> PipelineReport:
    """Submit what is missing; a dry run says what that would be, and touches nothing.

    Args:
        config: the pipeline.
        cluster: cluster file of stages that name none.
        unchecked: submit even what cannot work here and now.

    Raises UsageError for what is wrong in the files, HvcError when a check fails, another command is at
    work on the same pipeline, or Slurm or MLflow do not answer.
    """
    stages = [config.shard, config.train, *config.evaluate]
    files = [cluster, *(stage.cluster for stage in stages if stage is not None)]
    clusters = {path: ClusterConfig.load(path) for path in files if path is not None}
    with ExitStack() as held:
        for one in clusters.values():  # inputs and outputs are looked for where the jobs will
            held.enter_context(environment_of(one))
        if not dry_run:
            held.enter_context(sole_writer(config.place / _LOCK, str(config.place)))
        submission = _Submission(config, cluster, clusters, unchecked)
        return submission.plan() if dry_run else submission.do()


class _Submission:
    """One call of the command."""

    def __init__(
        self,
        config: PipelineConfig,
        cluster: str | None,
        clusters: dict[str, ClusterConfig],
        unchecked: bool,
    ) -> None:
        self.config, self.clusters, self.unchecked = config, clusters, unchecked
        self.folder = config.place
        self.state = PipelineState.read(self.folder)
        self.inputs = Inputs()
        self.uri = _uri_for_all(config, clusters)
        self.tasks = [self._fitted(task) for task in tasks_of(config, cluster, self.uri, self.inputs)]
        self.report = report_task(self.tasks, self.folder, self.uri, cluster or self.tasks[-1].cluster)
        self.sender = Sender(config, self.folder, clusters)

    def _fitted(self, task: Task) -> Task:
        """On one machine parts would only wait for each other."""
        return replace(task, parts=1) if self.clusters[task.cluster].executor == "local" else task

    def plan(self) -> PipelineReport:
        """What would be done."""
        known = self._known().jobs
        made, live = self._batches(known)
        names = {number: f"JOB_{number + 1}" for number in range(len(made))}
        scripts = [
            self.sender.script(batch, dependency_text(batch.after, names), name)
            for batch, name in zip(made, names.values(), strict=True)
        ]
        findings = [] if self.unchecked else self._findings(made)
        rows = self._rows(made, live, dict.fromkeys(names, ""), "to submit")
        configs = [[task.config for task in batch.tasks] for batch in made]
        return PipelineReport(
            self.folder, self.state.run_id, rows, scripts, configs, findings, self._remarks(known)
        )

    def do(self) -> PipelineReport:
        """Do it."""
        if self.inputs.problems:
            raise HvcError("cannot read " + "\n  ".join(self.inputs.problems))
        answer = self._known()
        if answer.problem:
            raise HvcError(f"{answer.problem}; submit from a login node of the cluster, once it answers")
        made, live = self._batches(answer.jobs)
        findings = [] if self.unchecked or not made else self._findings(made)
        refuse(findings)
        self.state.run_key = self.state.run_key or uuid.uuid4().hex
        self.state.tasks = [*self.tasks, self.report]
        self.state.write(self.folder)
        jobs: dict[int, str] = {}
        if made:
            self._open_run()
        for number, batch in enumerate(made):
            jobs[number] = self._send(batch, dependency_text(batch.after, jobs))
        rows = self._rows(made, live, jobs, "submitted")
        remarks = self._remarks(answer.jobs)
        return PipelineReport(self.folder, self.state.run_id, rows, [], [], findings, remarks)

    def _known(self) -> Answer:
        """What is known of jobs, those of this machine included; ids that a kill kept are found by it."""
        slurm = any(cluster.executor == "slurm" for cluster in self.clusters.values())
        answer = ask_controller() if slurm else Answer()
        self.state.refresh(answer.jobs)
        return replace(answer, jobs=answer.jobs | self.state.local_jobs())

    def _batches(self, known: dict[str, KnownJob]) -> tuple[list[Batch], dict[str, str]]:
        """What to submit, the report last; and the ids of what is under way."""
        live = self.state.live([*self.tasks, self.report], known)
        done = done_of(self.tasks)
        made = batches(self.tasks, done, live)
        under_way = [job for task in self.tasks if (job := live.get(task.key)) and task.key not in done]
        if made or (self.report.key not in live and not is_reported(self.report)):
            after = [Dependency("afterany", job=job) for job in under_way]
            after += [Dependency("afterany", batch=number) for number in range(len(made))]
            made.append(Batch((self.report,), tuple(after)))
        return made, {key: job for key, job in live.items() if key not in done}

    def _send(self, batch: Batch, after: str | None) -> str:
        """Submit a batch; a kill in here leaves a folder by which the job is found again."""
        folder = self.sender.folder_for(batch)
        sent = Sent.of(batch, folder)
        self.state.sent.append(sent)
        self.state.write(self.folder)
        try:
            job_id = self.sender.send(self._with_parent(batch), folder, after)
        except HvcError:
            self.state.sent.remove(sent)
            self.state.write(self.folder)
            raise
        self.state.sent[-1] = replace(sent, job_id=job_id)
        self.state.write(self.folder)
        return job_id

    def _with_parent(self, batch: Batch) -> Batch:
        """Training runs of it are shown below the pipeline's run."""
        return replace(batch, tasks=tuple(self._child(task) for task in batch.tasks))

    def _child(self, task: Task) -> Task:
        if task.stage != "train":
            return task
        tracking = {**task.config["tracking"], "parent": self.state.run_id}
        return replace(task, config={**task.config, "tracking": tracking})

    def _open_run(self) -> None:
        from hvc.pretrain.tracking.tracking_uri import default_uri
        from hvc.slurm.pipeline_run import open_run

        first = next((task for task in self.tasks if task.stage == "train"), None)
        experiment = TrainConfig.parse(first.config).tracking.experiment if first else "hvc"
        uri = self.uri or default_uri()
        open_run(self.state, uri, experiment, self.config.name, str(self.folder))
        self.state.write(self.folder)

    def _findings(self, made: Sequence[Batch]) -> list[Check]:
        """What stands in the way of each batch; of warnings with the same advice the first."""
        found = [check for batch in made if batch.role != "join" for check in self.sender.check(batch)]
        alike: dict[Any, Check] = {}
        for check in found:
            key = check if check.status == "fail" else (check.name, check.advice)
            alike.setdefault(key, check)
        return list(alike.values())

    def _rows(
        self, made: Sequence[Batch], live: dict[str, str], jobs: dict[int, str], word: str
    ) -> list[dict[str, Any]]:
        rows = []
        for task in [*self.tasks, self.report]:
            row = {"key": task.key, "state": "done", "job_id": None, "after": None, "output": task.output}
            if task.key in live:
                row |= {"state": "under way", "job_id": live[task.key]}
            for number, batch in enumerate(made):
                if batch.role != "parts" and task in batch.tasks:
                    index = f"_{batch.tasks.index(task)}" if len(batch.tasks) > 1 else ""
                    row |= {"state": word, "job_id": f"{jobs[number]}{index}" if jobs[number] else None}
                    row["after"] = task.need
            rows.append(row)
        return rows

    def _remarks(self, known: dict[str, KnownJob]) -> list[str]:
        outdated = self.state.outdated([*self.tasks, self.report], known)
        stale = {job: key for job, key in outdated.items() if key != self.report.key}
        return [
            f"job {job} still works on {key} as it was before something changed; hvc cancel {job} ends it"
            for job, key in stale.items()
        ] + [f"not readable here: {words}" for words in self.inputs.problems]


def _uri_for_all(config: PipelineConfig, clusters: dict[str, ClusterConfig]) -> str | None:
    """MLflow's address for all configs; none where the environment says it, maybe with a password."""
    if config.tracking_uri:
        return config.tracking_uri
    if config.train is not None:
        given = recipe_of(config.train, {}, "unknown", None).tracking.uri
        if given:
            return given
    servers = [one.mlflow for one in clusters.values() if one.mlflow]
    if servers:
        return servers[0]
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    from hvc.pretrain.tracking.tracking_uri import default_uri

    return default_uri()
