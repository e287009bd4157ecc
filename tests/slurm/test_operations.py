"""Jobs on a real cluster as their user sees and changes them: jobs, logs, cancel, requeue, resize."""

import json
import re
import sys
import time
from pathlib import Path

import pytest
from running import make_images, run_hvc

from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.known_jobs import Answer, ask_accounting
from hvc.slurm.stages import StagePaths
from hvc.slurm.submit import submit

pytestmark = [pytest.mark.services, pytest.mark.slow]
HERE = Path(__file__).parent
STAGE = StagePaths("toy", "toy_stage:run", "toy_stage:ToyConfig", parallel=True)


@pytest.fixture
def toy(slurm_env, tmp_path, monkeypatch):
    """Call it for a submitted job of two processes."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    from toy_stage import ToyConfig

    def make(name="toy", **config):
        (tmp_path / name).mkdir()
        described = ClusterConfig(
            name="test",
            partition="batch",
            nodes=2,
            time_minutes=10,
            grace_seconds=30,
            folder=str(tmp_path / "jobs"),
            environment={"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
        )
        config = ToyConfig(folder=str(tmp_path / name), **config)
        return submit(STAGE, config, described, name=name, unchecked=True)

    return make


def hvc(*arguments):
    """The command, from a folder that has nothing to do with the job."""
    return run_hvc(*arguments, cwd=Path("/"))


def told(*arguments):
    """What a command says, as data; it has to succeed."""
    done = hvc(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def row_of(job_id):
    """The only job of a submission, as `hvc jobs` has it."""
    (group,) = [one for one in told("jobs")["submissions"] if job_id in (one["job_id"], one["name"])]
    return group["jobs"][0]


def wait_for(job_id, state, timeout=240):
    end = time.monotonic() + timeout
    while (row := row_of(job_id))["state"] != state:
        assert time.monotonic() < end, row
        time.sleep(0.5)
    return row


def begun(folder: Path, number, timeout=120):
    """Wait until this attempt of the only job has begun; its number of ranks and its nodes."""
    end = time.monotonic() + timeout
    while len(sizes := re.findall(r"ranks (\d+)", (folder / "events").read_text())) < number:
        assert time.monotonic() < end, sizes
        time.sleep(0.5)
    return int(sizes[-1]), row_of("toy")["nodes"]


def steps_done(folder: Path, least=2, timeout=180):
    """Wait until the stage has made some steps."""
    end = time.monotonic() + timeout
    events = folder / "events"
    while not events.exists() or f"step {least}" not in events.read_text():
        assert time.monotonic() < end, "the stage made no steps"
        time.sleep(0.1)


def test_a_job_is_stopped_for_good_and_goes_on_where_it_was(toy, tmp_path, slurm_env):
    """Found from any folder; what was stopped is not requeued; requeued it goes on with the same folder."""
    report = toy(steps=100, step_seconds=0.2)
    steps_done(tmp_path / "toy")
    row = wait_for("toy", "running")
    assert (row["attempt"], row["nodes"]) == (1, "node[1-2]")

    said = told("cancel", "toy")
    assert "saves at its next step" in said["text"]
    row = wait_for(report.job_id, "stopped")
    assert row["reason"] == "saved"
    assert slurm_env.job(report.job_id)["Restarts"] == "0"
    saved = int((tmp_path / "toy" / "step").read_text())
    assert 0 < saved < 100
    again = hvc("cancel", report.job_id)
    assert again.returncode == 1
    assert "ended already" in again.stderr

    new_id = told("requeue", report.job_id)["jobs"][0]
    assert new_id != report.job_id
    row = wait_for(new_id, "done")
    assert row["attempt"] == 2
    assert (tmp_path / "toy" / "step").read_text() == "100"
    assert f"attempt 2 from {saved}" in (tmp_path / "toy" / "events").read_text()
    logs = told("logs", "toy", "--attempt", "1")["logs"]
    assert logs[-1]["path"].endswith("logs/attempt-1/rank-0.log")
    assert hvc("requeue", "toy").returncode == 1, "what is done is not done again"


def test_the_rank_that_failed_is_shown_first(toy, tmp_path):
    report = toy(steps=2, step_seconds=1000, failing_rank=1)
    row = wait_for(report.job_id, "failed")
    assert "this rank was told to fail" in row["reason"]
    shown = told("logs", report.folder.name[:-3])["logs"]  # the beginning of the folder's name will do
    assert "rank 1 failed in attempt" in shown[0]["title"]
    assert "OSError: this rank was told to fail" in shown[0]["text"]
    assert shown[-1]["path"].endswith("rank-1.log")
    other = told("logs", report.job_id, "--rank", "0")["logs"]
    assert other[-1]["path"].endswith("rank-0.log")
    missing = hvc("logs", report.job_id, "--rank", "7")
    assert missing.returncode == 2
    assert "there are 0, 1" in missing.stderr


def test_a_running_job_goes_back_into_the_queue_with_other_nodes(toy, tmp_path, slurm_env):
    """Followed meanwhile: the log of the next attempt comes without being asked for."""
    report = toy(steps=100, step_seconds=0.2)
    steps_done(tmp_path / "toy")
    refused = hvc("resize", report.job_id, "--nodes", "99")
    assert refused.returncode == 2
    assert "nodes at most, 99 are asked for; lower --nodes" in refused.stderr
    said = told("resize", report.job_id, "--nodes", "1")
    assert "goes on with 1 node" in said["text"]
    followed = hvc("logs", report.job_id, "--follow")
    assert followed.returncode == 0, followed.stderr
    assert "attempt-2/rank-0.log" in followed.stdout
    row = wait_for(report.job_id, "done")
    assert row["attempt"] == 2
    record = json.loads((report.folder / "attempts" / "attempt-2.json").read_text())
    assert record["nodes"] in ("node1", "node2")
    assert (tmp_path / "toy" / "step").read_text() == "100"


def test_submitted_again_it_has_the_nodes_that_it_was_resized_to(toy, tmp_path, slurm_env):
    report = toy(steps=1000, step_seconds=0.2)
    steps_done(tmp_path / "toy")
    told("resize", "toy", "--nodes", "1")
    assert begun(tmp_path / "toy", 2)[0] == 1
    told("cancel", "toy")
    wait_for("toy", "stopped")
    again = told("requeue", report.job_id)
    assert "with 1 node, as it had last" in again["text"]
    assert begun(tmp_path / "toy", 3)[0] == 1
    told("resize", report.job_id, "--nodes", "2")  # by its first id
    assert begun(tmp_path / "toy", 4) == (2, "node[1-2]")
    told("cancel", "toy", "--now")


def test_what_waits_leaves_the_queue_at_once_and_only_that(toy, tmp_path, slurm_env):
    first = toy("first", steps=1000, step_seconds=0.2)
    steps_done(tmp_path / "first")
    for node in slurm_env.nodes:  # no room for another one
        slurm_env.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        second = toy("second", steps=5)
        row = wait_for(second.job_id, "waiting")
        assert row["attempt"] is None
        told("cancel", "second")
        wait_for(second.job_id, "cancelled")
        assert row_of(first.job_id)["state"] == "running"
        told("cancel", "first", "--now")
        assert wait_for(first.job_id, "stopped")["attempt"] == 1, "it saves in the time that Slurm gives it"
    finally:
        for node in slurm_env.nodes:
            slurm_env.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


def test_a_folder_that_is_reached_by_a_link_is_the_same(toy, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "jobs").symlink_to("real")
    report = toy(steps=1000, step_seconds=0.2)
    steps_done(tmp_path / "toy")
    assert row_of(report.job_id)["state"] == "running"
    told("cancel", str(tmp_path / "jobs" / report.folder.name), "--now")
    assert wait_for(report.job_id, "stopped")["attempt"] == 1


def test_with_the_controller_away_the_folders_are_shown_and_nothing_is_changed(toy, monkeypatch):
    report = toy(steps=2)
    wait_for(report.job_id, "done")
    listed = told("jobs")
    assert listed["problem"] == ""
    assert ask_accounting([report.job_id]).jobs[report.job_id].state == "COMPLETED"
    with monkeypatch.context() as without:  # Slurm's own sacct, on a cluster that keeps no accounts
        without.setenv("PATH", "/usr/bin:/bin")
        assert ask_accounting([report.job_id]) == Answer()
    broken = Path(sys.prefix) / "no-such-slurm.conf"
    monkeypatch.setenv("SLURM_CONF", str(broken))
    listed = told("jobs")
    assert listed["problem"]
    assert listed["submissions"][0]["jobs"][0]["state"] == "done", "the folder knows"
    table = hvc("jobs")
    assert "Slurm could not be asked" in table.stdout
    refused = hvc("cancel", report.job_id)
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr


def test_of_an_array_only_what_is_not_done_is_submitted_again(slurm_env, tmp_path, monkeypatch):
    """Two parts of a sharding and the job that joins them; one part fails until its cause is put right."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_images(tmp_path / "photos", 8)
    made = {"name": "one", "partition": "batch", "time_minutes": 10, "max_requeues": 0}
    (tmp_path / "one.yaml").write_text(json.dumps(made | {"folder": str(tmp_path / "jobs")}))
    output = tmp_path / "data"
    (output / ".progress").mkdir(parents=True)
    (output / "shard-000001.tar").mkdir()  # what stands in the way of the second part
    command = ("submit", "shard", "folder", str(tmp_path / "photos"), str(output), "--min-shards", "2")
    report = told(*command, "--parts", "2", "--cluster", str(tmp_path / "one.yaml"), "--workers", "1")
    job_id = report["job_id"]

    def states():
        (group,) = told("jobs")["submissions"]
        return [row["state"] for row in group["jobs"]]

    def until(wanted, timeout=180):
        end = time.monotonic() + timeout
        while states() != wanted:
            assert time.monotonic() < end, hvc("jobs", "--all").stdout
            time.sleep(1)

    until(["done", "failed", "failed"])
    assert "shard-000001" in told("logs", job_id)["logs"][0]["text"], "of the task that failed"
    early = Path(told("jobs")["submissions"][0]["folder"], "logs").glob("slurm-*_*.out")
    assert sorted(path.name for path in early) == [f"slurm-{job_id}_{task}.out" for task in range(2)]
    (output / "shard-000001.tar").rmdir()
    again = told("requeue", job_id)
    assert "tasks 1" in again["text"]
    until(["done", "done", "done"])
    assert (output / "manifest.json").exists()
    assert not slurm_env.job(f"{again['jobs'][0]}_0"), "the part that was done is not done again"
