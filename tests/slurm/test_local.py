"""Jobs on this machine, without Slurm: the same script, attempts and requeues."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from running import make_images

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.shard_config import ShardConfig
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.local import ENDED, Options, record, request, start
from hvc.slurm.local_commands import split
from hvc.slurm.parts import submit_parts
from hvc.slurm.resubmission import resubmit
from hvc.slurm.stages import StagePaths
from hvc.slurm.submission import Submission, this_user
from hvc.slurm.submit import SubmitReport, sbatch_text, submit

HERE = Path(__file__).parent
STAGE = StagePaths("toy", "toy_stage:run", "toy_stage:ToyConfig", parallel=True)


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> ClusterConfig:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SLURM_CONF", "/nowhere")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return ClusterConfig(
        name="here",
        executor="local",
        tasks_per_node=2,
        folder=str(tmp_path / "jobs"),
        environment={"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
    )


def run(cluster: ClusterConfig, folder: Path, **values) -> SubmitReport:
    from toy_stage import ToyConfig

    return submit(STAGE, ToyConfig(folder=str(folder), **values), cluster)


def wait(job_id: str, folder: Path) -> str:
    end = time.monotonic() + 240
    while (state := record(job_id).get("state")) not in ENDED:
        assert time.monotonic() < end, said(folder)
        time.sleep(0.1)
    return state


def said(folder: Path) -> str:
    paths = [*folder.rglob("*.out"), *folder.rglob("*.log"), *folder.rglob("failures/*")]
    return "\n".join(f"== {path}\n{path.read_text()}" for path in paths)


def wait_for(event: str, folder: Path, job: Path) -> None:
    end = time.monotonic() + 180
    while not ((folder / "events").exists() and event in (folder / "events").read_text().splitlines()):
        assert time.monotonic() < end, said(job)
        time.sleep(0.05)


def attempts(folder: Path) -> list[str]:
    records = [json.loads(path.read_text()) for path in sorted(folder.rglob("attempts/attempt-*.json"))]
    return [values["outcome"] for values in records]


def test_what_a_script_says_is_obeyed():
    cluster = ClusterConfig(
        name="c", executor="local", tasks_per_node=3, cpus_per_task=2, time_minutes=5, grace_seconds=7
    )
    for folder in ("/jobs/one", '/it\'s a "job"'):
        options = Options.of(sbatch_text(cluster, "hvc", Path(folder)))
        assert options == Options(3, 2, 300, signal.SIGUSR2, 7, f"{folder}/logs/slurm-%j.out", [None], None)


def test_the_last_output_of_srun_counts():
    words = [
        "--unbuffered",
        "--output",
        "/a b",
        "--cpu-bind=none",
        "--output=/c",
        "sh",
        "-c",
        "x --output=d",
    ]
    assert split(words) == ("/c", ["sh", "-c", "x --output=d"])
    assert split(["--output", "/a", "true"]) == ("/a", ["true"])


def test_a_second_job_for_the_same_output_is_refused_while_the_first_lives(cluster, tmp_path, monkeypatch):
    make_images(tmp_path / "photos", 4)
    monkeypatch.chdir(tmp_path)
    inputs = [{"source": "folder", "address": str(tmp_path / "photos")}]
    config = ShardConfig(inputs=inputs, output="data")
    one = cluster.model_copy(update={"tasks_per_node": 1, "setup": ["sleep 60"]})
    first = submit("shard", config, one)
    with pytest.raises(HvcError, match=rf"job {first.job_id} .* writes {tmp_path}/data as well.*cancel"):
        submit("shard", config, one)
    with pytest.raises(HvcError, match=rf"job {first.job_id} "):
        submit_parts("shard", config, 2, one)
    submit("shard", ShardConfig(inputs=inputs, output="other"), one, dry_run=True)
    request(first.job_id, "cancel")
    assert wait(first.job_id, first.folder) == "CANCELLED"
    again = submit("shard", config, one)
    request(again.job_id, "cancel")
    assert wait(again.job_id, again.folder) == "CANCELLED"


def script(folder: Path, *body: str, **options: object) -> Path:
    """A script as Slurm would take it."""
    usual = {"ntasks-per-node": 1, "cpus-per-task": 1, "time": 5, "signal": "USR2@10"}
    given = {**usual, "output": folder / "out", **options}
    path = folder / f"{len(list(folder.iterdir()))}.sh"
    path.write_text("\n".join([*(f"#SBATCH --{key}={value}" for key, value in given.items()), *body]))
    return path


def test_what_waits_is_cancelled_before_it_begins_and_only_that(cluster, tmp_path):
    """A job behind another, and a task of an array; the next task runs all the same."""
    first = start(script(tmp_path, '[ "$SLURM_ARRAY_TASK_ID" = 1 ] || sleep 60', array="0-2"))
    behind = start(script(tmp_path, "touch begun", dependency=f"afterany:{first}"))
    request(behind, "cancel")
    assert wait(behind, tmp_path) == "CANCELLED"
    assert record(first)["state"] == "PENDING"
    for task in (2, 0):
        request(f"{first}_{task}", "cancel")
    wait(first, tmp_path)
    assert [record(f"{first}_{task}")["state"] for task in range(3)] == [
        "CANCELLED",
        "COMPLETED",
        "CANCELLED",
    ]
    assert not (tmp_path / "begun").exists()


def test_submitted_again_from_elsewhere_it_runs_in_the_same_folder(cluster, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    script(folder, "pwd > here").rename(folder / "7_submission.sh")
    values = dict.fromkeys(("stage", "name", "cluster", "sbatch", "command"), "x")
    before = Submission(
        **values, job_id="7", submitted=0.0, user=this_user(), workdir=str(tmp_path), local=True
    )
    again = resubmit(folder, before)
    assert wait(again.job_id, folder) == "COMPLETED"
    assert (tmp_path / "here").read_text() == f"{tmp_path}\n"


@pytest.mark.slow
def test_ranks_meet_and_report(cluster, tmp_path):
    report = run(cluster, tmp_path, steps=3)
    assert wait(report.job_id, report.folder) == "COMPLETED", said(report.folder)
    assert (tmp_path / "step").read_text() == "3"
    assert attempts(report.folder) == ["done"]
    assert Submission.read(report.folder).local
    assert len(list((report.folder / "logs").rglob("rank-*.log"))) == 2


@pytest.mark.slow
def test_stopped_it_saves_and_goes_on(cluster, tmp_path):
    """SIGTERM to what looks after the job: as a preemption does."""
    report = run(cluster, tmp_path, steps=60, step_seconds=0.1)
    wait_for("step 2", tmp_path, report.folder)
    os.kill(int(report.job_id), signal.SIGTERM)
    assert wait(report.job_id, report.folder) == "COMPLETED", said(report.folder)
    assert attempts(report.folder) == ["stopped", "done"]
    first, second = [line for line in (tmp_path / "events").read_text().splitlines() if "attempt" in line]
    assert first == "attempt 1 from 0"
    assert int(second.removeprefix("attempt 2 from ")) > 2
    assert (tmp_path / "step").read_text() == "60"


@pytest.mark.slow
def test_an_array_and_the_job_that_joins_its_parts(cluster, tmp_path):
    make_images(tmp_path / "images", 12)
    inputs = [{"source": "folder", "address": str(tmp_path / "images")}]
    config = ShardConfig(inputs=inputs, output=str(tmp_path / "data"), target_mb=0.02, parts=2, workers=1)
    alone = cluster.model_copy(update={"tasks_per_node": 1})
    report = submit_parts("shard", config, 2, alone)
    assert wait(report.join_job_id, report.folder) == "COMPLETED", said(report.folder)
    assert [record(f"{report.job_id}_{part}")["state"] for part in range(2)] == ["COMPLETED"] * 2
    assert read_manifest(open_store(config.output)).samples == 12


def test_a_failing_rank_ends_the_others(cluster, tmp_path):
    report = run(cluster, tmp_path, steps=3, failing_rank=1)
    assert wait(report.job_id, report.folder) == "FAILED"
    assert "this rank was told to fail" in said(report.folder)


def test_nothing_outlives_what_looks_after_it(cluster, tmp_path):
    import psutil

    report = run(cluster, tmp_path, steps=1000, step_seconds=0.1)
    wait_for("step 2", tmp_path, report.folder)
    runner = psutil.Process(int(report.job_id))
    family = runner.children(recursive=True)
    assert len(family) >= 4  # the script, srun, two ranks
    runner.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
