"""MLflow as a real server: absent, killed, slow, faulty, never back. Training does not notice."""

import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
from running import hvc_json, run_hvc, start_hvc, write_recipe
from services.proxy import FaultProxy
from tracked_runs import assert_exactly_the_journal, track, values_at, wait_until

from hvc.base.stage import Outcome
from hvc.pretrain.tracking import tracker as tracking
from hvc.pretrain.tracking.journal import JOURNAL, metric_records
from hvc.pretrain.tracking.mlflow_client import client_of
from hvc.pretrain.tracking.run_note import RunNote
from hvc.pretrain.tracking.sync import sync

pytestmark = pytest.mark.slow


def test_absent_at_start_then_back_then_killed_then_back(private_mlflow_server, tmp_path, caplog):
    server = private_mlflow_server()
    server.kill()
    folder = tmp_path / "run"
    begin = time.perf_counter()
    tracker = track(folder, server.uri)
    assert time.perf_counter() - begin < 2
    for step in range(1, 101):
        tracker.metrics(step, values_at(step))
    wait_until(lambda: "training goes on" in caplog.text)
    server.start()
    wait_until(lambda: tracker.run_id is not None)
    tracker.metrics(101, values_at(101))
    time.sleep(1)
    server.kill()
    for step in range(102, 201):
        tracker.metrics(step, values_at(step))
    assert tracker.pinned_steps() is None
    tracker.finish(Outcome.STOPPED)
    assert f"`hvc sync {folder}`" in caplog.text
    told = run_hvc("sync", str(folder), cwd=tmp_path)
    assert told.returncode == 1
    assert server.uri in told.stdout
    server.start()
    done = hvc_json("sync", str(folder), cwd=tmp_path)
    assert [run["waiting"] for run in done["runs"]] == [0]
    run_id = assert_exactly_the_journal(folder, server.uri)
    assert client_of(server.uri).get_run(run_id).info.status == "SCHEDULED"


def test_a_server_behind_a_bad_network_holds_exactly_the_journal(mlflow_server, tmp_path):
    """A third of all requests or answers get lost, cut or refused: runs and versions are made once."""
    for seed in range(3):
        proxy = FaultProxy(
            mlflow_server.uri, share=0.3, seed=seed, kinds=("reset", "lose", "cut", "truncate", "busy")
        )
        folder = tmp_path / f"run-{seed}"
        tracker = track(folder, proxy.url)
        for step in range(1, 301):
            tracker.metrics(step, values_at(step))
        tracker.finish(Outcome.STOPPED)
        for _ in range(30):
            (done,) = sync([folder])
            if not done.problem:
                break
        assert done.waiting == 0
        assert_exactly_the_journal(folder, mlflow_server.uri)
        assert proxy.counts["lose"] + proxy.counts["cut"] + proxy.counts["truncate"] > 0
        proxy.close()


def seconds_per_step(count: int, each: Callable[[int], object]) -> float:
    """Median over steps of fixed work on the CPU, each followed by a call."""
    work = np.random.default_rng(0).random((300, 300))
    seconds = []
    for step in range(1, count + 1):
        begin = time.perf_counter()
        for _ in range(8):
            work @ work
        each(step)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


@pytest.mark.parametrize("server", ["never there", "answers after 10 s", "well"])
def test_a_step_takes_no_longer(server, request, tmp_path, monkeypatch):
    """Against the same steps without any tracking, in turn: what else the machine does meets both."""
    monkeypatch.setitem(tracking.FINISH_SECONDS, Outcome.STOPPED, 0.5)
    address = "http://127.0.0.1:9"
    if server != "never there":
        address = request.getfixturevalue("mlflow_server").uri
    if server == "answers after 10 s":
        slow = FaultProxy(address, share=1.0, kinds=("delay",))
        slow.delay, address = 10.0, slow.url
        request.addfinalizer(slow.close)
    values = {f"train/metric-{number}": float(number) for number in range(30)}
    client_of(address)  # imports
    every = 10 if server == "well" else 1
    without, tracked, calls = [], [], []
    for turn in range(5):
        without.append(seconds_per_step(100, lambda step: None))
        tracker = track(tmp_path / f"run-{turn}", address)
        if server == "well":  # the server's own work for a new run is on the same few cores
            wait_until(
                lambda to=tracker: to.run_id is not None and RunNote.read(to.journal.path.parent).cursor
            )
            time.sleep(1)
        tracked.append(
            seconds_per_step(100, lambda step, to=tracker: step % every or to.metrics(step, values))
        )
        tracker.finish(Outcome.STOPPED)
        calls.append(tracker.seconds / (100 // every))
        assert len(tracker.records()) == 100 // every
    # Within the noise of steps that track nothing; a call that asked the server would take 10 ms or more.
    assert min(tracked) < 1.1 * max(without) + 2e-4, (without, tracked)
    assert min(calls) < 5e-4


def test_a_run_is_at_the_server(dataset, tmp_path, mlflow_server):
    tracking = {"uri": mlflow_server.uri, "experiment": "served", "model": "served"}
    recipe = write_recipe(tmp_path / "served.yaml", dataset, tracking=tracking, steps=2)
    result = hvc_json("train", str(recipe), cwd=tmp_path)
    client = client_of(mlflow_server.uri)
    assert client.get_run(result["run_id"]).info.status == "FINISHED"
    names = {item.path for item in client.list_artifacts(result["run_id"], "encoder")}
    assert names == {"encoder/encoder.safetensors"}
    assert client.get_model_version_by_alias("served", "newest").run_id == result["run_id"]


def test_training_without_a_server_and_the_rest_sent_when_started_again(
    dataset, tmp_path, private_mlflow_server
):
    server = private_mlflow_server()
    recipe = write_recipe(tmp_path / "alone.yaml", dataset, tracking={"uri": server.uri}, steps=6)
    server.kill()
    child = start_hvc("train", str(recipe), cwd=tmp_path, log=tmp_path / "log")
    assert child.wait(200) == 0, (tmp_path / "log").read_text()
    steps = [record["step"] for record in metric_records(tmp_path / "alone" / JOURNAL)]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert f"`hvc sync {tmp_path}/alone`" in (tmp_path / "log").read_text()
    server.start()
    run_id = hvc_json("train", str(recipe), cwd=tmp_path)["run_id"]
    client = client_of(server.uri)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run_id, "train/loss")] == steps
    assert json.loads((tmp_path / "alone" / "run.json").read_text())["closed"] is True
