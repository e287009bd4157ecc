"""MLflow as a real server, alive and killed in mid-run."""

import json
import time

import pytest
from running import hvc_json, start_hvc, write_recipe

from hvc.base.errors import UsageError
from hvc.pretrain.journal import Journal
from hvc.pretrain.recipe import TrainConfig

pytestmark = [pytest.mark.slow]


def test_a_run_is_at_the_server(dataset, tmp_path, mlflow_server):
    import mlflow

    tracking = {"uri": mlflow_server.uri, "experiment": "served", "model": "served"}
    recipe = write_recipe(tmp_path / "served.yaml", dataset, tracking=tracking, steps=2)
    result = hvc_json("train", str(recipe), cwd=tmp_path)
    client = mlflow.MlflowClient(mlflow_server.uri)
    assert client.get_run(result["run_id"]).info.status == "FINISHED"
    names = {item.path for item in client.list_artifacts(result["run_id"], "encoder")}
    assert names == {"encoder/encoder.safetensors"}
    assert client.get_model_version_by_alias("served", "newest").run_id == result["run_id"]


def test_a_server_that_dies_costs_no_step(dataset, tmp_path, private_mlflow_server):
    server = private_mlflow_server()
    recipe = write_recipe(tmp_path / "alone.yaml", dataset, tracking={"uri": server.uri}, steps=6)
    child = start_hvc("train", str(recipe), cwd=tmp_path, log=tmp_path / "log")
    journal = tmp_path / "alone" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_text()) and time.monotonic() < deadline:
        assert child.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    server.kill()
    assert child.wait(200) == 0, (tmp_path / "log").read_text()
    steps = [json.loads(line)["step"] for line in journal.read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    words = (tmp_path / "log").read_text()
    assert "did not reach MLflow" in words
    assert str(journal) in words
    assert (tmp_path / "alone" / "checkpoints" / "step-00000006" / "COMPLETE").exists()


def test_the_journal_survives_half_a_line(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        journal.append(step, {"train/loss": float(step)})
    with journal.path.open("a") as file:
        file.write('{"step": 4, "tra')
    journal.rewind(2)
    journal.append(3, {"train/loss": 30.0})
    assert [(r["step"], r["train/loss"]) for r in journal.records()] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_PASSWORD") as error:
        TrainConfig.parse({"data": "x", "tracking": {"uri": "https://me:hunter2@host/"}})
    assert "hunter2" not in str(error.value)
