"""Runs as they stand at MLflow: what `hvc runs` lists.

MLflow says RUNNING of a run whose process was killed, for ever. So what was last heard of it counts, too.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hvc.base.errors import HvcError
from hvc.pretrain.tracking.mlflow_client import answering, connect, experiments_of
from hvc.pretrain.tracking.run_at_server import GROUP

SILENT_SECONDS = 600.0
"""A running run that said nothing for longer, and for longer than a few records take, is silent."""
_RECORDS = 5.0
_STATES = {"SCHEDULED": "stopped, goes on", "FINISHED": "finished", "FAILED": "failed", "KILLED": "failed"}
Headline = Callable[[str], str]
"""The measure that a benchmark's methods are compared by: `jf_mean`, `miou`, `pck_0.1` and so on."""
History = Callable[[str, str], list[tuple[int, float]]]
"""All (step, value) of a run's metric: `history(run_id, name)`."""


@dataclass(frozen=True)
class Score:
    """The best score of a run on one benchmark."""

    benchmark: str
    preset: str
    """The protocol's name; `-subset-` in it: not all sequences."""
    measure: str
    """The benchmark's headline: `jf_mean`, `miou`, `pck_0.1` and so on."""
    value: float
    """In percent."""
    step: int


@dataclass(frozen=True)
class RunRow:
    """One run."""

    name: str
    run_id: str
    experiment: str
    state: str
    """running, silent for ..., stopped, goes on, finished, failed, baseline, or group of runs."""
    started: float
    """Seconds since 1970, as the next."""
    last_heard: float
    step: int | None
    total_steps: int | None
    loss: float | None
    images_per_second: float | None
    scores: tuple[Score, ...]
    output: str | None
    """The run's output folder, on the machine that trained."""
    checkpoint: str | None
    """Address of the newest complete checkpoint."""
    checkpoint_step: int | None

    def values(self) -> dict[str, Any]:
        """As plain data for JSON; what is not finite is null."""
        values = asdict(self)
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }


def open_tracking(uri: str) -> Any:
    """An MlflowClient; HvcError when the server does not answer, or the SQLite file is not there.

    To look is not to make: MLflow itself would make an empty database.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise HvcError(
            f"nothing is recorded at {uri}: no such file. Unless told otherwise, `hvc train` records into "
            "outputs/mlflow.db of the folder that it is started in: go there, or name the database by "
            "--tracking-uri or MLFLOW_TRACKING_URI"
        )
    return connect(uri)


def list_runs(
    client: Any, uri: str, experiment: str | None, limit: int, now: float, headline: Headline
) -> list[RunRow]:
    """The newest `limit` runs of an experiment (None: of all), those begun last first.

    Args:
        client: an MlflowClient.
        uri: its address, for messages.
        now: seconds since 1970.
        headline: says which measure of a benchmark is shown.

    Raises:
        UsageError: there is no such experiment.
        HvcError: the server does not answer.
    """
    with answering(uri):
        names = experiments_of(client, uri, experiment)
        runs = client.search_runs(list(names), max_results=limit, order_by=["attributes.start_time DESC"])

        def history(run_id: str, name: str) -> list[tuple[int, float]]:
            return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]

        return [
            row_of(run, names[run.info.experiment_id], history, _checkpoint(client, run), now, headline)
            for run in runs
        ]


def row_of(
    run: Any,
    experiment: str,
    history: History,
    checkpoint: tuple[int, str] | None,
    now: float,
    headline: Headline,
) -> RunRow:
    """What is to say of one run.

    Args:
        run: an MLflow Run.
        history: asked for scores only.
        checkpoint: step and address of the newest one.
        now: seconds since 1970.
        headline: says which measure of a benchmark is shown.
    """
    points = {point.key: point for point in run.data.to_proto().metrics}
    own = [point for name, point in points.items() if not name.startswith("eval/")]
    step = max((point.step for name, point in points.items() if name.startswith("train/")), default=None)
    heard = max([run.info.start_time, run.info.end_time or 0, *(point.timestamp for point in own)]) / 1000
    value = {name: point.value for name, point in points.items()}
    step_number, address = checkpoint or (None, None)
    return RunRow(
        name=run.info.run_name or run.info.run_id[:8],
        run_id=run.info.run_id,
        experiment=experiment,
        state=state_of(run.info.status, run.data.tags, now - heard, record_seconds(value, run.data.params)),
        started=run.info.start_time / 1000,
        last_heard=heard,
        step=step,
        total_steps=total_steps(run.data.params, run.data.tags, value, step),
        loss=value.get("train/loss"),
        images_per_second=value.get("perf/images_per_second"),
        scores=best_scores(
            {name: history(run.info.run_id, name) for name in points if _is_headline(name, headline)}
        ),
        output=run.data.tags.get("hvc.output"),
        checkpoint=address,
        checkpoint_step=step_number,
    )


def state_of(status: str, tags: Mapping[str, str], quiet: float, record_seconds: float) -> str:
    """MLflow's status in words; a RUNNING run that is quiet for too long is called silent.

    Args:
        quiet: seconds since anything was heard of it.
        record_seconds: seconds between two of its metric records.
    """
    if "hvc.baseline" in tags:
        return "baseline"
    if GROUP in tags:
        return "group of runs"
    if status != "RUNNING":
        return _STATES.get(status, status.lower())
    if quiet <= max(SILENT_SECONDS, _RECORDS * record_seconds):
        return "running"
    return f"silent for {duration(quiet)}"


def record_seconds(metrics: Mapping[str, float], params: Mapping[str, str]) -> float:
    """Seconds between two metric records of a run, 0 where that is unknown."""
    seconds = metrics.get("perf/step_seconds", 0.0) * (_whole(params.get("log_every")) or 0)
    return seconds if math.isfinite(seconds) else 0.0


def total_steps(
    params: Mapping[str, str], tags: Mapping[str, str], metrics: Mapping[str, float], step: int | None
) -> int | None:
    """Steps of the whole run: as tagged, as its recipe says, or by how many epochs it is in; else None."""
    said = _whole(tags.get("hvc.total_steps")) or _whole(params.get("steps"))
    if said is not None:
        return said
    epoch, epochs = metrics.get("train/epoch", 0.0), _whole(params.get("epochs"))
    return round(step / epoch * epochs) if step and epoch > 0 and epochs else None


def best_scores(histories: Mapping[str, list[tuple[int, float]]]) -> tuple[Score, ...]:
    """Of every benchmark the best score, by name; scores of all its sequences go before those of some,
    and those of the trunk alone before those with another one merged in.

    Args:
        histories: (step, value) of `eval/BENCHMARK/PRESET/HEADLINE`.
    """
    best: dict[str, Score] = {}
    for name, points in histories.items():
        _, benchmark, preset, measure = name.split("/")
        for step, value in points:
            score = Score(benchmark, preset, measure, value, step)
            if math.isfinite(value) and (benchmark not in best or _rank(score) > _rank(best[benchmark])):
                best[benchmark] = score
    return tuple(best[name] for name in sorted(best))


def _rank(score: Score) -> tuple[bool, bool, float, int]:
    return is_whole(score), "-merged-" not in score.preset, score.value, score.step


def is_whole(score: Score) -> bool:
    """Whether it is over all sequences of the benchmark."""
    return "-subset-" not in score.preset


def _is_headline(name: str, headline: Headline) -> bool:
    parts = name.split("/")
    return len(parts) == 4 and parts[0] == "eval" and parts[-1] == headline(parts[1])


def _checkpoint(client: Any, run: Any) -> tuple[int, str] | None:
    """Step and address of a run's newest checkpoint, by its tags or by the versions registered of it."""
    tags = run.data.tags
    step = _whole(tags.get("hvc.checkpoint.step"))
    if step is None:
        return None
    if "hvc.checkpoint.address" in tags:
        return step, tags["hvc.checkpoint.address"]
    for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
        if version.tags.get("hvc.step") == str(step) and "hvc.address" in version.tags:
            return step, version.tags["hvc.address"]
    return None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def duration(seconds: float) -> str:
    """A time in one unit: 40 s, 12 min, 3 h, 2 d."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(int(seconds), 0)} s"
