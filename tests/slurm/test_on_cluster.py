"""Jobs on a real Slurm cluster: two nodes, one or two processes each, a stage that counts."""

import json
import os
import sys
import time
from pathlib import Path

import pytest
import submitit
from slurm_jobs import left_over, ranks_of

from hvc.base.errors import HvcError
from hvc.slurm.allocation import reachable
from hvc.slurm.attempts import Attempt, Records
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.stages import StagePaths
from hvc.slurm.submit import SubmitReport, submit

pytestmark = [pytest.mark.services, pytest.mark.slow]
HERE = Path(__file__).parent
STAGE = StagePaths(
    "toy", "toy_stage:run", "toy_stage:ToyConfig", parallel=True, progress="toy_stage:progress"
)
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


@pytest.fixture
def toy(slurm_env, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    return lambda **options: Toy(slurm_env, tmp_path, **options)


class Toy:
    """One submitted job, and what it left on disk."""

    def __init__(
        self,
        cluster,
        folder: Path,
        tasks_per_node=1,
        max_requeues=5,
        python=None,
        time_minutes=10,
        **config,
    ) -> None:
        from toy_stage import ToyConfig

        self.cluster, self.folder, self.ranks = cluster, folder, 2 * tasks_per_node
        described = ClusterConfig(
            name="test",
            partition="batch",
            nodes=2,
            tasks_per_node=tasks_per_node,
            time_minutes=time_minutes,
            grace_seconds=30,
            folder=str(folder / "jobs"),
            max_requeues=max_requeues,
            environment={"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
            python=python,
        )
        self.report: SubmitReport = submit(STAGE, ToyConfig(folder=str(folder), **config), described)

    def events(self) -> list[str]:
        path = self.folder / "events"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, event: str, timeout: float = 180) -> None:
        end = time.monotonic() + timeout
        while event not in self.events():
            assert time.monotonic() < end, f"no {event!r}: {self.events()}\n{self.log(0)}"
            time.sleep(0.1)

    def ended(self, timeout: float = 240) -> str:
        """The state in which it stays: what comes back into the queue has a moment of TIMEOUT first."""
        end = time.monotonic() + timeout
        while True:
            state = self.cluster.wait(self.report.job_id, ENDED, end - time.monotonic())["JobState"]
            if state != "TIMEOUT":
                return state
            time.sleep(1)

    def log(self, rank: int) -> str:
        """The rank's words over all attempts, after what the script and srun said."""
        paths = [
            *self.report.folder.glob("logs/slurm-*.out"),
            *sorted(self.report.folder.glob(f"logs/attempt-*/rank-{rank}.log")),
        ]
        return "\n".join(path.read_text() for path in paths)

    def saved(self) -> int:
        path = self.folder / "step"
        return int(path.read_text()) if path.exists() else 0

    def attempts(self) -> list[Attempt]:
        return Records(self.report.folder, None).all()

    def results(self) -> list[dict[str, object]]:
        job = submitit.SlurmJob(
            folder=self.report.folder, job_id=self.report.job_id, tasks=list(range(self.ranks))
        )
        return job.results()

    def pickles(self) -> list[Path]:
        return list(self.report.folder.glob("*_result.pkl"))

    def finish(self) -> None:
        """It went on where it saved, in a second attempt, without a third."""
        assert self.ended() == "COMPLETED", self.log(0)
        attempts = [event for event in self.events() if event.startswith("attempt")]
        assert len(attempts) == 2
        assert attempts[0] == "attempt 1 from 0"
        saved = int(attempts[1].removeprefix("attempt 2 from "))
        assert saved > 0
        assert (self.folder / "step").read_text() == self.report_step()
        assert self.cluster.job(self.report.job_id)["Restarts"] == "1"
        for number in (1, 2):
            log = (self.report.folder / f"logs/attempt-{number}/rank-0.log").read_text()
            assert f"attempt {number}, rank 0" in log
        assert [record.outcome for record in self.attempts()] == ["stopped", "done"]
        assert [result["rank"] for result in self.results()] == list(range(self.ranks))

    def report_step(self) -> str:
        return str(self.results()[0]["step"])


def test_all_ranks_meet_and_report(toy):
    job = toy(steps=3, tasks_per_node=2)
    assert job.ended() == "COMPLETED", job.log(0)
    expected = {
        "step": 3,
        "sum": 10.0,
        "slurm_job_id": job.report.job_id,
        "cluster": "test",
        "nodes": "node[1-2]",
    }
    assert job.results() == [{**expected, "rank": rank} for rank in range(4)]
    assert (job.folder / "step").read_text() == "3"


def test_asked_to_stop_it_saves_and_goes_on(toy):
    """USR2 is what Slurm sends before the time limit (`--signal`)."""
    job = toy(steps=60, step_seconds=0.2, tasks_per_node=2)
    job.wait_for("step 2")
    job.cluster.run("scancel", "--signal=USR2", job.report.job_id)
    job.cluster.wait(job.report.job_id, "PENDING")
    assert job.pickles() == []
    job.finish()


@pytest.mark.parametrize("user_signal", [True, False])
def test_preempted_it_saves_and_goes_on(user_signal, slurm_cluster_factory, tmp_path, monkeypatch):
    """With SIGTERM alone, too: not every cluster sends a preempted job the signal it asked for."""
    monkeypatch.syspath_prepend(str(HERE))
    cluster = slurm_cluster_factory(user_signal=user_signal)
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    job = Toy(cluster, tmp_path, steps=60, step_seconds=0.2)
    job.wait_for("step 2")
    options = ["--parsable", "-p", "urgent", "-N2", "--ntasks-per-node=4", "--output=/dev/null"]
    urgent = cluster.run("sbatch", *options, "--wrap", "sleep 1").strip()
    cluster.wait(urgent, "COMPLETED", timeout=240)
    job.finish()


@pytest.mark.parametrize("deaf", [False, True])
def test_preempted_where_slurm_cancels_for_that_it_comes_back(
    deaf, slurm_cluster_factory, tmp_path, monkeypatch
):
    """At once, without a grace time; its ranks save in the time before they are killed, or do not."""
    monkeypatch.syspath_prepend(str(HERE))
    cluster = slurm_cluster_factory(kill_wait=20)  # on a busy machine Python alone takes 5 s to start
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    cluster.run("scontrol", "update", "PartitionName=batch", "PreemptMode=CANCEL", "GraceTime=0")
    steps, seconds = (20, 2.0) if deaf else (60, 0.2)  # it has to outlast the time until it is killed
    job = Toy(cluster, tmp_path, steps=steps, step_seconds=seconds, save_every=1, deaf=deaf)
    job.wait_for("step 2")
    options = ["--parsable", "-p", "urgent", "-N2", "--ntasks-per-node=4", "--output=/dev/null"]
    cluster.run("sbatch", *options, "--wrap", "sleep 1")
    _until(lambda: any(event.startswith("attempt 2") for event in job.events()))
    assert cluster.job(job.report.job_id)["Restarts"] == "1"
    assert job.ended() == "COMPLETED", job.log(0)
    assert [record.outcome for record in job.attempts()] == ["failed" if deaf else "stopped", "done"]


def test_requeued_by_the_operator_it_is_not_requeued_twice(toy):
    job = toy(steps=60, step_seconds=0.2)
    job.wait_for("step 2")
    job.cluster.run("scontrol", "requeue", job.report.job_id)
    job.finish()


def test_a_signal_during_the_start_does_no_harm(toy, tmp_path):
    """Python takes seconds to start, and until then every signal would end it."""
    slow = tmp_path / "slow-python"
    slow.write_text(f'#!/bin/sh\ntouch {tmp_path}/starting\nsleep 2\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    job = toy(steps=3, python=str(slow))
    _until(lambda: (tmp_path / "starting").exists())
    job.cluster.run("scancel", "--signal=TERM", job.report.job_id)
    job.cluster.run("scancel", "--signal=USR2", job.report.job_id)
    assert job.ended() == "COMPLETED", job.log(0)


def test_cancelled_it_stays_cancelled(toy):
    job = toy(steps=1000, step_seconds=0.2)
    job.wait_for("step 2")
    job.cluster.run("scancel", job.report.job_id)
    assert job.ended() == "CANCELLED"
    _until(lambda: job.cluster.run("squeue", "-h", "-j", job.report.job_id, check=False) == "")
    assert (job.folder / "step").exists(), "cancelled without saving"
    assert job.cluster.job(job.report.job_id)["JobState"] == "CANCELLED"
    assert job.pickles() == []


def test_a_rank_that_always_fails_ends_the_job_and_says_so(toy):
    """The other rank sleeps through it, as one in a collective that hangs would."""
    job = toy(steps=2, step_seconds=1000, failing_rank=1, max_requeues=1)
    assert job.ended() == "FAILED"
    assert job.cluster.job(job.report.job_id)["Restarts"] == "1"
    assert "given up: 2 attempts in a row" in job.log(0)
    for number, record in enumerate(job.attempts(), start=1):
        assert (record.attempt, record.outcome) == (number, "failed")
        assert record.reason == "rank 1: OSError: this rank was told to fail"
        failure = (job.report.folder / f"failures/attempt-{number}-rank-1.txt").read_text()
        assert "this rank was told to fail" in failure
        assert "rank 1 of 2" in failure


def test_progress_is_never_too_many_requeues(toy):
    job = toy(steps=60, step_seconds=0.2, max_requeues=0)
    job.wait_for("step 2")
    job.cluster.run("scancel", "--signal=USR2", job.report.job_id)
    job.finish()


def test_what_a_person_has_to_put_right_is_not_tried_again(toy):
    job = toy(steps=2, refused=True)
    assert job.ended() == "FAILED"
    assert job.cluster.job(job.report.job_id)["Restarts"] == "0"
    assert [record.outcome for record in job.attempts()] == ["failed"]


def test_a_killed_rank_brings_the_job_back(toy):
    job = toy(steps=60, step_seconds=0.2, tasks_per_node=2, save_every=1)
    job.wait_for("step 3")
    ranks_of(job.report.job_id)[3].kill()
    assert job.ended() == "COMPLETED", job.log(0)
    assert [record.outcome for record in job.attempts()] == ["failed", "done"]
    assert job.attempts()[0].reason.startswith(("a rank was killed", "rank "))  # "rank": an error of Gloo
    assert job.attempts()[1].progress > 0
    assert left_over(job.report.job_id) == []


def test_a_rank_that_ends_badly_when_all_is_done_fails_nothing(toy):
    job = toy(steps=2, dies_late=True)
    assert job.ended() == "COMPLETED", job.log(0)
    assert [record.outcome for record in job.attempts()] == ["done"]


@pytest.mark.soak
@pytest.mark.skipif("HVC_SOAK" not in os.environ, reason="waits for a time limit of minutes")
def test_what_did_not_save_before_the_time_limit_goes_on_from_what_it_has(toy):
    job = toy(steps=2, step_seconds=48, save_every=1, deaf=True, time_minutes=1)
    assert job.ended(timeout=500) == "COMPLETED", job.log(0)
    first = job.attempts()[0]
    assert (first.outcome, first.requeued) == ("failed", True)
    assert "when its time was up" in first.reason


def test_asked_to_stop_for_good_it_saves_and_stays_out_of_the_queue(toy):
    job = toy(steps=1000, step_seconds=0.2)
    job.wait_for("step 2")
    request = job.report.folder / "requests" / "stop"
    request.parent.mkdir()
    request.touch()
    assert job.ended() == "CANCELLED"
    assert int((job.folder / "step").read_text()) > 0
    assert [record.outcome for record in job.attempts()] == ["stopped"]


def test_another_number_of_nodes(slurm_cluster_factory, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    cluster = slurm_cluster_factory(nodes=4)
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    job = Toy(cluster, tmp_path, steps=80, step_seconds=0.3, tasks_per_node=2)
    requests = job.report.folder / "requests"
    requests.mkdir()
    for attempt, nodes in enumerate((3, 99, 2), start=1):
        job.wait_for(f"attempt {attempt} from {job.saved()}")
        (requests / "resize.json").write_text(json.dumps({"nodes": nodes}))
        _until(lambda: not (requests / "resize.json").exists())
    assert job.ended() == "COMPLETED", job.log(0)
    sizes = [line for line in job.events() if line.startswith("ranks ")]
    assert sizes == ["ranks 4", "ranks 6", "ranks 6", "ranks 4"]
    assert json.loads((requests / "resize-refused.json").read_text()) == {"nodes": 99}


def test_sbatch_refuses_with_its_own_words(slurm_env, tmp_path):
    from hvc.base.config import Config

    cluster = ClusterConfig(name="test", nodes=99, folder=str(tmp_path))
    with pytest.raises(HvcError, match=r"sbatch refused the job: .*More processors requested"):
        submit(STAGE, Config(), cluster, unchecked=True)


def test_a_node_without_a_name_is_reached_by_its_address(slurm_env):
    """The nodes' names are known on the nodes only, as on clusters whose names no resolver knows."""
    assert reachable("node1") == "127.0.0.1"
    assert reachable("localhost") == "localhost"
    with pytest.raises(HvcError, match="node77"):
        reachable("node77")


def _until(ready, timeout=180):
    end = time.monotonic() + timeout
    while not ready():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.1)
