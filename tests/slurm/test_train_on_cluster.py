"""The main job on a real cluster: training from S3, on two nodes with two tasks each."""

import json

import pytest
from running import clean_env, hvc_json, make_images, write_recipe

from hvc.pretrain.checkpoint import open_checkpoint

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
    assert len(list(done.folder.glob("buffers-*"))) == 4
    import mlflow

    run = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(done.state["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["hvc.slurm_job_id"] == submitted["job_id"]
    for secret in (s3.env["AWS_SECRET_ACCESS_KEY"], s3.env["AWS_ACCESS_KEY_ID"]):
        for path in (tmp_path / "slurm-jobs").rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
