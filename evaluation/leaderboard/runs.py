"""What MLflow knows of evaluations: entries of a leaderboard from runs, their metrics and reports."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.evaluation.leaderboard.board import UNKNOWN, Entry, Measured, Picture, Unscored
from hvc.evaluation.leaderboard.published import headline_of
from hvc.evaluation.metrics.measures import MAIN
from hvc.evaluation.reports.logged import Data, data_of, read_artifact, read_report, report_folder
from hvc.pretrain.tracking.mlflow_client import answering, experiments_of, shown
from hvc.pretrain.tracking.run_at_server import GROUP
from hvc.pretrain.tracking.runs import record_seconds, state_of

_PAGE = 1000
_AT_ONCE = 8
"""Requests on their way to MLflow: each is a short wait and little work."""
Point = tuple[int, float, int]
"""Step, value, ms since 1970."""


@dataclass(frozen=True)
class _Evaluation:
    """All evaluations of a run under one path `eval/BENCHMARK/PRESET`."""

    run: Any
    experiment: str
    path: str
    headline: str
    latest: dict[str, float]
    """The newest values of its measures."""
    reports: bool
    """Whether its reports are wanted, or figures and files only."""
    data: Data | None
    """The files of all its steps; None: see the reports."""


def collect(
    client: Any, uri: str, experiment: str | None, *, reports: bool = True
) -> tuple[list[Measured], list[Unscored]]:
    """Every evaluation of the runs of an experiment (None: of all), and the runs that have none.

    Args:
        client: an MlflowClient.
        uri: its address, for messages.
        experiment: its name.
        reports: with protocols, checkpoints, figures per sequence and pictures, which costs a request per
            run; else reports are read only where figures, files or remarks are nowhere else.

    Raises:
        UsageError: there is no such experiment.
        HvcError: the server does not answer.
    """
    with answering(uri):
        names = experiments_of(client, uri, experiment)
        runs = list(_all_runs(client, list(names)))
        found = {
            run.info.run_id: list(_evaluations(run, names[run.info.experiment_id], reports)) for run in runs
        }
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            every = [evaluation for one in found.values() for evaluation in one]
            measured = [
                entry for made in pool.map(lambda one: _entries(client, one), every) for entry in made
            ]
    now = time.time()
    bare = [run for run in runs if not found[run.info.run_id] and GROUP not in run.data.tags]
    return measured, [_unscored(run, names[run.info.experiment_id], now) for run in bare]


def _all_runs(client: Any, experiments: list[str]) -> Iterator[Any]:
    token = None
    while experiments:
        page = client.search_runs(
            experiments, max_results=_PAGE, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _evaluations(run: Any, experiment: str, reports: bool) -> Iterator[_Evaluation]:
    values: dict[str, dict[str, float]] = {}
    for name, value in run.data.metrics.items():
        parts = name.split("/")
        if len(parts) == 4 and parts[0] == "eval":
            values.setdefault("/".join(parts[:3]), {})[parts[3]] = value
    for path, latest in values.items():
        usual = headline_of(path.split("/")[1])
        headline = next((name for name in (usual, *MAIN) if name in latest), next(iter(latest)))
        yield _Evaluation(run, experiment, path, headline, latest, reports, data_of(run.data.tags, path))


def _entries(client: Any, found: _Evaluation) -> list[Measured]:
    """One entry for every set of files that the run was evaluated on, the best step of each."""
    history = client.get_metric_history(found.run.info.run_id, f"{found.path}/{found.headline}")
    points = newest_by_step((point.step, point.value, point.timestamp) for point in history)
    best, last = best_point(points), points[-1]
    if found.data is not None:
        return [_measured(client, found, points, best)]
    made = [_measured(client, found, points, point) for point in dict.fromkeys((best, last))]
    if len(made) == 2 and made[0].digest == made[1].digest:
        return made[:1]
    if len(made) == 2:  # other files since: the best of each kind of them
        every = [_measured(client, found, points, point) for point in points]
        return list(_best_of_each(every))
    return made


def newest_by_step(history: Iterable[Point]) -> list[Point]:
    """One point per step, by step: what was evaluated again counts as it was the last time."""
    by_step = {point[0]: point for point in sorted(history, key=lambda point: (point[0], point[2]))}
    return list(by_step.values())


def best_point(points: Iterable[Point]) -> Point:
    """The highest value that is finite; of equal ones that of the later step."""
    return max(points, key=lambda point: (point[1] if math.isfinite(point[1]) else -math.inf, point[0]))


def _best_of_each(every: Iterable[Measured]) -> Iterator[Measured]:
    kinds: dict[tuple[str, int], list[Measured]] = {}
    for one in every:
        kinds.setdefault((one.digest, one.sequences), []).append(one)
    for members in kinds.values():
        headline = members[0].headline
        points = [(one.entry.step or 0, one.entry.scores.get(headline, math.nan), 0) for one in members]
        best, last = points.index(best_point(points)), points[-1]
        history = tuple((point[0], point[1]) for point in points)
        entry = replace(
            members[best].entry, steps=len(members), last_step=last[0], last=last[1], history=history
        )
        yield replace(members[best], entry=entry)


def _measured(client: Any, found: _Evaluation, points: list[Point], point: Point) -> Measured:
    run, (step, value, when), data = found.run, point, found.data
    folder = report_folder(found.path, step)
    _, benchmark, preset = found.path.split("/")
    bare = data is not None and point == points[-1] and _without_merged(preset) == preset
    report = {} if bare and not found.reports else read_report(client, run, found.path, step)
    data = data or Data(str(report.get("data_digest", UNKNOWN)), int(report.get("sequences", 0)))
    scores = report.get("scores")
    if not isinstance(scores, dict):
        scores = found.latest if point == points[-1] else {}
    entry = Entry(
        kind=_kind(run),
        name=_name(run),
        scores={**scores, found.headline: value},
        step=step,
        last_step=points[-1][0],
        last=points[-1][1],
        steps=len(points),
        history=tuple((point[0], point[1]) for point in points),
        run_id=run.info.run_id,
        experiment=found.experiment,
        state=_state(run, time.time()),
        evaluated=when / 1000,
        checkpoint=str(report.get("checkpoint", "")),
        remark=_remark(report, data),
        report={key: report[key] for key in ("per_sequence", "per_object", "curves") if key in report},
        pictures=tuple(
            Picture(run.info.run_id, run.info.artifact_uri, f"{folder}/{Path(path).name}", Path(path).name)
            for path in report.get("pictures", ())
        ),
    )
    protocol = report.get("protocol") or {}
    return Measured(
        entry,
        benchmark,
        _without_merged(preset),
        data.digest,
        found.headline,
        data.sequences,
        {key: value for key, value in protocol.items() if key != "merge_weight"},
    )


def _remark(report: dict[str, Any], data: Data) -> str:
    other = report.get("merged")
    if not other:
        return (
            "report is gone: which files it was evaluated on is unknown" if data.digest == UNKNOWN else ""
        )
    weight = other.get("weight_of_first")
    return (
        f"merged with {other.get('checkpoint')} ({str(other.get('weights_sha256'))[:7]}), weight {weight}"
    )


def _without_merged(preset: str) -> str:
    """`hvc-merged-0123abc-subset-1` -> `hvc-subset-1`: same protocol, same files, another method."""
    before, mark, rest = preset.partition("-merged-")
    return before + rest[7:] if mark else preset


def _kind(run: Any) -> Literal["run", "baseline"]:
    return "baseline" if "hvc.baseline" in run.data.tags else "run"


def _name(run: Any) -> str:
    baseline = run.data.tags.get("hvc.baseline")
    return str(baseline or run.info.run_name or run.info.run_id[:8])


def _state(run: Any, now: float) -> str:
    heard = [run.info.start_time, run.info.end_time or 0]
    heard += [point.timestamp for point in run.data.to_proto().metrics if not point.key.startswith("eval/")]
    seconds = record_seconds(run.data.metrics, run.data.params)
    return state_of(run.info.status, run.data.tags, now - max(heard) / 1000, seconds)


def _unscored(run: Any, experiment: str, now: float) -> Unscored:
    state = _state(run, now)
    return Unscored(_name(run), run.info.run_id, experiment, state, run.info.start_time / 1000)


def pictures_from(client: Any, uri: str) -> Callable[[Picture], bytes | None]:
    """What brings a picture's bytes from MLflow: None where it is gone, HvcError without an answer."""

    def fetch(picture: Picture) -> bytes | None:
        try:
            return read_artifact(client, picture.run_id, picture.root, picture.path)
        except Exception as error:  # noqa: BLE001 - MLflow raises anything from requests to boto3
            raise HvcError(f"MLflow at {public(uri)} gives no pictures: {shown(error, uri)}") from None

    return fetch
