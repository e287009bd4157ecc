"""The main job on a real cluster: training from S3, on two nodes with two tasks each."""

import json
import signal
import time

import psutil
import pytest
from running import clean_env, hvc_json, make_images, write_recipe

from hvc.pretrain.checkpoints.checkpoint import complete_steps, open_checkpoint

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.mark.timeout(600)
def test_training_on_two_nodes_from_s3(tmp_path, s3, slurm_cluster):
    make_images(tmp_path / "images", 21)
    address = s3.bucket("cluster") + "/photos"
    hvc_json("shard", "folder", "images", address, "--target-mb", "0.02", cwd=tmp_path, **s3.env)
    recipe = write_recipe(tmp_path / "cluster.yaml", address, steps=3, engine={"zero_stage": 1})
    cluster = tmp_path / "mini.yaml"
    shape = {"name": "mini", "partition": "batch", "nodes": 2, "tasks_per_node": 2, "time_minutes": 30}
    cluster.write_text(json.dumps(shape | {"environment": {"OMP_NUM_THREADS": "1"}}))
    environment = clean_env() | slurm_cluster.env | s3.env
    submitted = hvc_json(
        "submit", "train", str(recipe), "--cluster", str(cluster), cwd=tmp_path, **environment
    )
    slurm_cluster.wait(submitted["job_id"], {"COMPLETED"}, timeout=400)

    done = open_checkpoint(tmp_path / "cluster" / "checkpoints" / "step-00000003")
    assert done.state["world_size"] == 4
    assert len(done.rank_buffers) == 4
    import mlflow

    note = json.loads((tmp_path / "cluster" / "run.json").read_text())
    run = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(note["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["hvc.attempt.1.slurm_job_id"] == submitted["job_id"]
    assert {"system/node-0/cpu_utilization_percentage", "system/node-1/cpu_utilization_percentage"} <= set(
        run.data.metrics
    )
    for secret in (s3.env["AWS_SECRET_ACCESS_KEY"], s3.env["AWS_ACCESS_KEY_ID"]):
        for path in (tmp_path / "slurm-jobs").rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def rank_of(process: psutil.Process, job_id: str) -> str | None:
    try:
        environment = process.environ()
    except psutil.Error:
        return None
    return environment.get("SLURM_PROCID") if environment.get("SLURM_JOB_ID") == job_id else None


@pytest.mark.timeout(600)
def test_a_hanging_rank_brings_the_job_back_into_the_queue(tmp_path, dataset, slurm_cluster):
    recipe = write_recipe(
        tmp_path / "hang.yaml", dataset, steps=30, watchdog_seconds=15, checkpoint={"every": 1, "keep": 2}
    )
    cluster = tmp_path / "mini.yaml"
    shape = {"name": "mini", "partition": "batch", "nodes": 2, "tasks_per_node": 1, "time_minutes": 30}
    cluster.write_text(json.dumps(shape | {"environment": {"OMP_NUM_THREADS": "1"}}))
    environment = clean_env() | slurm_cluster.env
    submitted = hvc_json(
        "submit", "train", str(recipe), "--cluster", str(cluster), cwd=tmp_path, **environment
    )
    root = tmp_path / "hang" / "checkpoints"
    deadline = time.monotonic() + 200
    while not complete_steps(root):
        assert time.monotonic() < deadline, "no step was taken"
        time.sleep(0.05)
    (frozen,) = [
        process
        for process in psutil.process_iter()
        if rank_of(process, submitted["job_id"]) == "1" and "submitit" in " ".join(process.cmdline())
    ][:1]
    frozen.send_signal(signal.SIGSTOP)  # the cluster ends it when the job is requeued
    slurm_cluster.wait(submitted["job_id"], {"COMPLETED"}, timeout=400)
    assert complete_steps(root)[-1] == 30
    assert "trainer.py" in (tmp_path / "hang" / "stacks-00000.txt").read_text()
    (record,) = (tmp_path / "slurm-jobs").glob("*/attempts/attempt-1.json")
    ended = json.loads(record.read_text())
    assert (ended["outcome"], ended["requeued"]) == ("hung", True)
    assert "it stood still and was ended; what came after its last checkpoint is lost" in ended["reason"]
    journal = (tmp_path / "hang" / "journal.jsonl").read_text().splitlines()
    attempts = [line for line in map(json.loads, journal) if line["kind"] == "attempt"]
    assert [attempt["number"] for attempt in attempts] == [1, 2]
