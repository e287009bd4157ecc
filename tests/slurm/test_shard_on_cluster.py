"""Sharding in parts on a real Slurm cluster: an array over two nodes, and a job that joins it."""

import json
import os
import time

import numpy as np
import psutil
import pytest
import slurm_jobs
from PIL import Image

from hvc.base.stage import Provenance, never
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.parts import submit_parts

pytestmark = [pytest.mark.services, pytest.mark.slow]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
PARTS = 3


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Enough to decode for seconds, on few bytes of disk: names of a few pictures."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(8):
        blocks = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        picture = Image.fromarray(blocks).resize((1600, 1200), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:04d}.jpg", quality=90)
    for number in range(8, 480):
        os.link(folder / f"{number % 8:04d}.jpg", folder / f"{number:04d}.jpg")
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def reference(images, tmp_path_factory):
    """The same dataset, made by one run here."""
    output = tmp_path_factory.mktemp("reference") / "out"
    run(ShardConfig.parse(options(images, output)), never, Provenance())
    return contents(output)


def options(images, output, **more):
    inputs = [{"source": "folder", "address": str(images)}]
    return {"inputs": inputs, "output": str(output), "name": "x", "min_shards": 48, "workers": 2, **more}


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def begin(images, folder):
    """Three parts and their join, submitted."""
    cluster = ClusterConfig(
        name="test",
        partition="batch",
        cpus_per_task=2,
        time_minutes=10,
        grace_seconds=30,
        folder=str(folder / "jobs"),
        environment={"OMP_NUM_THREADS": "1"},
    )
    config = ShardConfig.parse(options(images, folder / "out", parts=PARTS))
    return submit_parts("shard", config, PARTS, cluster)


def logs(report):
    return slurm_jobs.logs(report.folder)


def disturb(actions, output, report):
    """Do something to each part as soon as it has finished a shard, and not yet all of them."""
    end = time.monotonic() + 180
    while actions:
        for path in output.glob(".progress/shard-*.json"):
            action = actions.pop(int(path.stem.removeprefix("shard-")) % PARTS, None)
            if action is not None:
                action()
        assert time.monotonic() < end, logs(report)
        time.sleep(0.02)


def process_of(part, report):
    """The stage's process; the nodes are this machine."""
    wanted = ["-m", "submitit.core._submit", str(report.folder)]
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if command[-3:] != wanted or "python" not in command[0]:
            continue
        if process.environ().get("SLURM_ARRAY_TASK_ID") == str(part):
            return process
    raise AssertionError(logs(report))


def test_a_killed_part_and_a_stopped_part_end_in_the_same_dataset(slurm_env, images, reference, tmp_path):
    report = begin(images, tmp_path)
    actions = {
        0: lambda: slurm_env.run("scancel", "--signal=USR2", f"{report.job_id}_0"),
        1: lambda: process_of(1, report).kill(),
    }
    disturb(actions, tmp_path / "out", report)
    join = slurm_env.wait(report.join_job_id, ENDED, timeout=240)
    assert join["JobState"] == "COMPLETED", logs(report)
    states = [slurm_env.job(f"{report.job_id}_{part}") for part in range(PARTS)]
    assert [state["JobState"] for state in states] == ["COMPLETED"] * PARTS, logs(report)
    assert [state["Restarts"] for state in states] == ["1", "1", "0"], "each for itself"
    assert {state["BatchHost"] for state in states} == set(slurm_env.nodes)
    assert contents(tmp_path / "out") == reference
    assert verify(str(tmp_path / "out")).ok
    for part, attempts in ((0, 2), (1, 2), (2, 1)):
        found = sorted(report.folder.glob(f"logs/task-{part}/attempt-*/rank-0.log"))
        assert len(found) == attempts, logs(report)
    assert (report.folder / "logs/attempt-1/rank-0.log").exists(), "of the job that joins them"


def test_the_command_submits_both_jobs(slurm_env, images, reference, tmp_path):
    from running import hvc_json

    cluster = tmp_path / "cluster.yaml"
    described = {"name": "test", "partition": "batch", "cpus_per_task": 2, "folder": str(tmp_path / "jobs")}
    cluster.write_text(json.dumps(described))
    words = ["folder", str(images), str(tmp_path / "out"), "--name", "x", "--min-shards", "48"]
    words += ["--workers", "2", "--parts", "2", "--cluster", str(cluster)]
    report = hvc_json("submit", "shard", *words, cwd=tmp_path)
    join = slurm_env.wait(report["join_job_id"], ENDED, timeout=240)
    assert join["JobState"] == "COMPLETED"
    assert contents(tmp_path / "out") == reference
