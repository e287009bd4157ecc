"""Evaluation in parts on a real Slurm cluster: an array shares the sequences, a job behind it scores."""

import json
import time
from pathlib import Path

import pytest
import slurm_jobs
from evaluation_video import make_video
from registered_runs import RegisteredRun
from running import clean_env, hvc_json

pytestmark = [pytest.mark.services, pytest.mark.slow]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


def logs(report):
    return slurm_jobs.logs(Path(report["folder"]))


@pytest.mark.timeout(600)
def test_parts_and_a_stopped_part_end_in_the_run_of_the_checkpoint(slurm_env, tmp_path):
    for number in range(5):
        make_video(frames=4 + number).write(tmp_path / "clips" / f"clip-{number}")
    registered = RegisteredRun(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "run")
    registered.save(10)
    cluster = tmp_path / "cluster.yaml"
    described = {"name": "test", "partition": "batch", "cpus_per_task": 1, "folder": str(tmp_path / "jobs")}
    cluster.write_text(json.dumps(described | {"environment": {"OMP_NUM_THREADS": "1"}}))
    words = [f"runs:/{registered.run_id}", "folder", "clips", "protocol.input_size=64", "--parts", "2"]
    words += ["--tracking-uri", registered.uri, "--output", str(tmp_path / "results")]
    env = clean_env() | slurm_env.env
    report = hvc_json("submit", "evaluate", *words, "--cluster", str(cluster), cwd=tmp_path, **env)
    registered.save(20)  # `runs:/ID` was asked for when 10 was the newest
    end = time.monotonic() + 120
    while not list(tmp_path.glob("results/folder/*/sequences/*.json")):
        assert time.monotonic() < end, logs(report)
        time.sleep(0.05)
    slurm_env.run("scancel", "--signal=USR2", f"{report['job_id']}_0")
    join = slurm_env.wait(report["join_job_id"], ENDED, timeout=300)
    assert join["JobState"] == "COMPLETED", logs(report)
    configs = [
        json.loads(next((tmp_path / "jobs").glob("*/job-part-1.json")).read_text())["config"],
        json.loads(next((tmp_path / "jobs").glob("*/job-join.json")).read_text())["config"],
    ]
    assert [config["checkpoint"] for config in configs] == [f"runs:/{registered.run_id}@10"] * 2
    (folder,) = (tmp_path / "results" / "folder").iterdir()
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["sequences"] == 5
    assert registered.points(f"{scores['metrics']}/jf_mean") == [(10, scores["scores"]["jf_mean"])]
