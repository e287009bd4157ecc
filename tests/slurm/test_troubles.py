"""One training run on two nodes, from S3 and into an MLflow server, through what happens on clusters.

It ends in the weights and the history of a run that nobody disturbed. CI takes two troubles; `make soak`
all of them, in an order of its own each time.
"""

import os
import random
import time
from itertools import pairwise

import pytest
import torch
from running import hvc_json, make_images, run_hvc, write_recipe
from slurm_jobs import TrainingJob, left_over, logs, ranks_of, until

from hvc.pretrain.checkpoints.checkpoint import open_checkpoint
from hvc.pretrain.tracking.journal import metric_records

SOAK = "HVC_SOAK" in os.environ
pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.soak, pytest.mark.timeout(3600)]
STEPS = int(os.environ.get("HVC_SOAK_STEPS", "1000")) if SOAK else 40
"""A machine where a step takes long needs fewer: training has to outlast the troubles."""


def time_limit(job):
    """Slurm asks for a stop soon, as less than a minute is left, and 30 s are asked for."""
    until(lambda: 1 <= run_time(job)[1] < 30, "the first half of a minute")
    minutes = run_time(job)[0] + 1
    job.cluster.run("scontrol", "update", f"JobId={job.job_id}", f"TimeLimit={minutes}")
    began_again(job)
    job.cluster.run("scontrol", "update", f"JobId={job.job_id}", "TimeLimit=30")


def run_time(job):
    """Minutes and seconds."""
    _, minutes, seconds = job.cluster.job(job.job_id)["RunTime"].split(":")
    return int(minutes), int(seconds)


def preemption(job):
    preempt(job)


def preemption_by_sigterm_alone(job):
    job.cluster.send_user_signal(False)
    preempt(job)
    job.cluster.send_user_signal(True)


def preempt(job):
    options = ["--parsable", "-p", "urgent", "-N2", "--ntasks-per-node=4", "--output=/dev/null"]
    urgent = job.cluster.run("sbatch", *options, "--wrap", "sleep 1").strip()
    job.cluster.wait(urgent, "COMPLETED", timeout=120)


def killed_rank(job):
    ranks_of(job.job_id)[3].kill()


def killed_step(job):
    """All ranks at once."""
    lines = job.cluster.run("squeue", "-h", "--steps", "-j", job.job_id, "-o", "%i").split()
    (step,) = [line for line in lines if line.rpartition(".")[2].isdigit()]
    job.cluster.run("scancel", "--signal=KILL", step)


def killed_node(job):
    """One that does not run the job's script; it comes back later."""
    job.cluster.kill_node("node2")
    # What the controller finds out by itself after SlurmdTimeout, usually five minutes.
    job.cluster.run("scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=test")
    until(lambda: job.cluster.job(job.job_id)["JobState"] != "RUNNING", "the loss of node2 is seen", 180)
    job.cluster.revive_node("node2")
    until(lambda: resumed(job.cluster), "node2 is back")


def resumed(cluster):
    cluster.run("scontrol", "update", "NodeName=node2", "State=RESUME", check=False)
    return "node2" in cluster.run("sinfo", "-h", "-N", "-t", "idle,alloc,mix,comp", "-o", "%N")


def requeued_by_hand(job):
    job.cluster.run("scontrol", "requeue", job.job_id)


def began_again(job):
    until(lambda: len(job.attempts()) > job.seen, f"the next attempt\n{logs(job.folder)}", 240)


TROUBLES = [
    time_limit,
    preemption,
    preemption_by_sigterm_alone,
    killed_rank,
    killed_step,
    killed_node,
    requeued_by_hand,
]
SAVING = {time_limit, preemption, preemption_by_sigterm_alone}
"""Those that leave time enough to save."""


def chosen():
    """All in an order of chance, or two (always the same, and none that waits for minutes)."""
    if SOAK:
        seed = int(time.time())
        print("seed", seed, flush=True)  # noqa: T201
        return random.Random(seed).sample(TROUBLES, len(TROUBLES))
    return [preemption_by_sigterm_alone, killed_rank]


def test_through_all_troubles_to_the_same_weights(tmp_path, s3, mlflow_server, slurm_cluster_factory):
    cluster = slurm_cluster_factory()
    make_images(tmp_path / "images", 29)
    address = s3.bucket("troubles") + "/photos"
    hvc_json("shard", "folder", "images", address, "--target-mb", "0.02", cwd=tmp_path, **s3.env)
    shared = {"steps": STEPS, "checkpoint": {"every": 5, "keep": 3}, "engine": {"zero_stage": 1}}
    quiet = write_recipe(tmp_path / "quiet.yaml", address, **shared)
    done = run_hvc("train", str(quiet), "--processes", "4", cwd=tmp_path, timeout=1800, **s3.env)
    assert done.returncode == 0, done.stderr

    experiment = f"troubles-{tmp_path.name}-{os.getpid()}"
    tracking = {"uri": mlflow_server.uri, "experiment": experiment, "upload_encoder": False}
    recipe = write_recipe(tmp_path / "troubled.yaml", address, **shared, tracking=tracking)
    job = TrainingJob(cluster, recipe, s3.env, nodes=2, tasks_per_node=2)
    troubles = chosen()
    for number, trouble in enumerate(troubles, start=1):
        job.wait_for_attempt(number)
        job.seen = number
        job.wait_for_step(max(job.steps(), default=0) + 6)
        assert max(job.steps()) < STEPS, f"done before {trouble.__name__} could happen"
        trouble(job)
        began_again(job)
    job.finish(timeout=900)

    assert left_over(job.job_id) == []
    attempts = job.attempts()
    assert len(attempts) == len(troubles) + 1
    for trouble, attempt, following in zip(troubles, attempts, attempts[1:], strict=False):
        ends = ("stopped",) if trouble in SAVING else ("failed", "lost", "stopped")
        assert attempt["outcome"] in ends, (trouble.__name__, attempt)
        assert following["progress"] >= attempt["progress"] + (trouble in SAVING)
    assert attempts[-1]["outcome"] == "done"
    assert all(len(attempt["checks"]) == 4 for attempt in attempts)
    for number in range(1, len(attempts) + 1):
        names = sorted(path.name for path in job.folder.glob(f"logs/attempt-{number}/*"))
        assert names == [f"rank-{rank}.log" for rank in range(4)]

    same_weights(tmp_path / "quiet", job.output)
    quiet_losses = losses(tmp_path / "quiet")
    assert losses(job.output) == quiet_losses
    assert job.steps() == list(range(1, STEPS + 1))

    import mlflow

    client = mlflow.MlflowClient(mlflow_server.uri)
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == sorted(quiet_losses.items())
    times = [line["time"] for line in job.lines("attempt")]
    assert all(before < after for before, after in pairwise(times))


def losses(folder):
    records = metric_records(folder / "journal.jsonl")
    return {int(record["step"]): record["train/loss"] for record in records if "train/loss" in record}


def same_weights(one, other):
    first, second = [
        open_checkpoint(folder / "checkpoints" / f"step-{STEPS:08d}") for folder in (one, other)
    ]
    for name in ("model", "optimizer", "buffers", "encoder"):
        left, right = first.tensors(name), second.tensors(name)
        assert left.keys() == right.keys()
        assert [key for key in left if not torch.equal(left[key], right[key])] == [], name
