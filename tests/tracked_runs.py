"""Runs that are tracked without being trained, and whether a server holds exactly their journal."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from training_data import pictures, write_dataset

from hvc.base.stage import Provenance
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.journal import JOURNAL, read_lines, values_of
from hvc.pretrain.tracking.mlflow_client import client_of
from hvc.pretrain.tracking.run_note import RunNote
from hvc.pretrain.tracking.tracker import Tracker

Points = dict[str, list[tuple[int, float, int]]]
"""(step, value, ms since 1970) of each metric, in order."""


def config_of(folder: Path, uri: str, **more: Any) -> TrainConfig:
    """A recipe whose data lies beside the output folder."""
    data = folder.parent / f"{folder.name}-data"
    if not data.exists():
        write_dataset(data, pictures(4), 2)
    tracking = {"uri": uri, "experiment": "tracked", "model": folder.name} | more.pop("tracking", {})
    values = {"name": "tracked", "data": str(data), "output": str(folder), "steps": 1000}
    return TrainConfig.parse(values | {"tracking": tracking} | more)


def track(folder: Path, uri: str, attempt: int = 1, resumed: Any = None, **more: Any) -> Tracker:
    """An attempt."""
    config = config_of(folder, uri, **more)
    return Tracker(config, load_data(config), Provenance(attempt), resumed=resumed)


def values_at(step: int) -> dict[str, float]:
    """What a step measures; now and then it is not finite."""
    odd = math.nan if step % 7 == 0 else math.inf if step % 11 == 0 else math.sin(step)
    return {"train/loss": -float(step), "train/static": odd, "perf/images_per_second": 100.0 / (step + 1)}


def in_journal(folder: Path) -> Points:
    """All points of a journal."""
    found: Points = {}
    for line, _ in read_lines(folder / JOURNAL):
        if line["kind"] == "metrics":
            for name, value in values_of(line).items():
                found.setdefault(name, []).append((line["step"], value, line["time"]))
    return found


def at_server(uri: str, run_id: str, names: set[str] | None = None) -> Points:
    """All points of a run at a server."""
    client = client_of(uri)
    known = names or set(client.get_run(run_id).data.metrics)
    return {
        name: sorted(
            ((p.step, p.value, p.timestamp) for p in client.get_metric_history(run_id, name)),
            key=lambda point: point[0],
        )
        for name in known
    }


def comparable(points: Points) -> dict[str, list[tuple[int, str, int]]]:
    """NaN equals NaN; a database has the largest number where the journal has infinity."""
    big = sys.float_info.max
    return {
        name: [
            (step, repr(max(-big, min(big, value)) if value == value else value), ms)
            for step, value, ms in found
        ]
        for name, found in points.items()
    }


def assert_exactly_the_journal(folder: Path, uri: str, run_id: str | None = None) -> str:
    """The server has every point of the journal and no other; and the run is there once."""
    note = RunNote.read(folder)
    assert note is not None
    run_id = run_id or note.run_id
    assert run_id is not None
    assert comparable(at_server(uri, run_id)) == comparable(in_journal(folder))
    client = client_of(uri)
    where = client.get_experiment_by_name("tracked").experiment_id
    runs = client.search_runs([where], f"tags.`hvc.run_key` = '{note.run_key}'")
    assert [run.info.run_id for run in runs] == [run_id]
    return run_id


def wait_until(condition: Any, seconds: float = 180.0) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
