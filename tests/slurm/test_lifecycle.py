"""Attempts of a training job on a real cluster: lost and back from the dead, resized, on a slow node."""

import json
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import missing
from running import write_recipe
from slurm_jobs import TrainingJob, left_over, logs, processes_of, ranks_of, until

from hvc.pretrain.checkpoints.checkpoint import complete_steps, open_checkpoint
from hvc.slurm.control import ControlError, try_out, working_nodes
from hvc.slurm.script import submission_script

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]
HERE = Path(__file__).parent


def test_an_attempt_that_comes_back_from_the_dead_is_refused(
    tmp_path, dataset, slurm_cluster_factory, mlflow_server
):
    """Its node is lost, the job begins again elsewhere, and then the first attempt wakes up."""
    cluster = slurm_cluster_factory()
    tracking = {"uri": mlflow_server.uri, "upload_encoder": False, "pictures": 0}
    recipe = write_recipe(
        tmp_path / "run.yaml", dataset, steps=60, checkpoint={"every": 2, "keep": 50}, tracking=tracking
    )
    job = TrainingJob(cluster, recipe, {}, nodes=1, tasks_per_node=2)
    job.wait_for_step(5)
    lost = [process for process, _ in processes_of(job.job_id)]
    node = cluster.job(job.job_id)["NodeList"]
    for process in lost:
        process.send_signal(signal.SIGSTOP)
    cluster.kill_node(node)
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")
    seen = max(job.steps())
    job.wait_for_attempt(2)
    job.wait_for_step(seen + 3)
    # Its srun is told at once that its node is gone, and ends the job's step; both attempts work side by
    # side then, for as long as the newer one has steps left for the older one to disturb.
    lost.sort(key=lambda process: process.name() != "srun")
    assert lost[0].name() == "srun"
    for process in lost:
        is_srun = alive(process) and process.name() == "srun"
        with suppress(psutil.NoSuchProcess):  # srun takes its helper along
            process.send_signal(signal.SIGCONT)
        time.sleep(3 if is_srun else 0)
    held: list[psutil.Process] = []

    def lost_has_ended() -> bool:
        if not held and max(job.steps()) >= 40:
            held.extend(process for process in ranks_of(job.job_id).values() if process not in lost)
            for process in held:
                process.send_signal(signal.SIGSTOP)
        return not any(alive(process) for process in lost)

    until(lost_has_ended, "the lost attempt ends", 120)
    assert cluster.job(job.job_id)["JobState"] == "RUNNING", logs(job.folder)
    for process in held:
        process.send_signal(signal.SIGCONT)
    job.finish()
    assert cluster.job(job.job_id)["Restarts"] == "1", "the lost attempt's script asked for another start"
    assert [(record["outcome"], record["requeued"]) for record in job.attempts()] == [
        ("lost", False),
        ("done", False),
    ]
    words = (job.folder / "failures" / "attempt-1-rank-0.txt").read_text()
    assert "taken over by a later attempt" in words
    assert [line["number"] for line in job.lines("attempt")] == [1, 2]
    assert [line["status"] for line in job.lines("state")] == ["FINISHED"]
    assert job.steps() == list(range(1, 61))
    root = job.output / "checkpoints"
    resumed = [step for step in complete_steps(root) if step > seen]
    assert {
        open_checkpoint(root / f"step-{step:08d}").state["tracking"]["attempt"] for step in resumed
    } == {2}
    assert left_over(job.job_id) == []
    cluster.revive_node(node)


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_two_nodes_then_three_then_two_take_the_samples_in_one_order(
    tmp_path, slurm_cluster_factory, monkeypatch, dataset
):
    from hvc.pretrain.data.dataset import load_data, plan_run
    from hvc.pretrain.data.order import RunOrder
    from hvc.pretrain.recipe import TrainConfig
    from hvc.slurm.cluster import ClusterConfig
    from hvc.slurm.stages import StagePaths
    from hvc.slurm.submit import submit

    monkeypatch.syspath_prepend(str(HERE))
    cluster = slurm_cluster_factory(nodes=3)
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    steps = 30
    recipe = write_recipe(tmp_path / "run.yaml", dataset, steps=steps, checkpoint={"every": 100})
    config = TrainConfig.load(recipe)
    described = ClusterConfig(
        name="test",
        partition="batch",
        nodes=2,
        folder=str(tmp_path / "jobs"),
        environment={"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1", "TAKEN": str(tmp_path / "taken")},
    )
    stage = StagePaths(
        "train",
        "recorded_training:run",
        "hvc.pretrain.train:TrainConfig",
        parallel=True,
        progress="hvc.pretrain.advance:advance",
    )
    report = submit(stage, config, described)
    (report.folder / "requests").mkdir()
    request = report.folder / "requests" / "resize.json"
    for attempt, nodes in ((1, 3), (2, 2)):
        until(lambda: taken(tmp_path, attempt), f"attempt {attempt}\n{logs(report.folder)}")  # noqa: B023
        request.write_text(json.dumps({"nodes": nodes}))
        until(lambda: not request.exists(), f"{nodes} nodes\n{logs(report.folder)}")
    assert cluster.wait(report.job_id, ("COMPLETED", "FAILED"), 200)["JobState"] == "COMPLETED", logs(
        report.folder
    )
    ranks = [{line["rank"] for line in taken(tmp_path, attempt)} for attempt in (1, 2, 3)]
    assert ranks == [{0, 1}, {0, 1, 2}, {0, 1}]
    order = RunOrder(plan_run(config, load_data(config)))
    seen: dict[int, list[int]] = {}
    for attempt in (1, 2, 3):
        for line in sorted(taken(tmp_path, attempt), key=lambda line: (line["step"], line["rank"])):
            seen.setdefault(line["step"], []).extend(line["samples"])
    assert seen == {step: order.batch_of(step, 0, 1).samples.tolist() for step in range(steps)}


def taken(folder: Path, attempt: int) -> list[dict]:
    """What every rank of an attempt took: rank, step and samples."""
    paths = folder.glob(f"taken/attempt-{attempt}-rank-*.jsonl")
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_a_slow_node_is_found_and_left_out(tmp_path, slurm_cluster_factory, monkeypatch):
    """The process on one node is stopped most of the time, once it is up, as by a fan that has failed."""
    monkeypatch.syspath_prepend(str(HERE))
    import sys

    from toy_stage import ToyConfig

    from hvc.slurm.cluster import ClusterConfig
    from hvc.slurm.stages import StagePaths
    from hvc.slurm.submit import submit

    cluster = slurm_cluster_factory(nodes=3)
    if not cluster.namespaces:
        missing("services", "nodes have no names of their own: the cluster's namespaces need root")
    # Commands leave a hidden partition out unless told otherwise, which sinfo refuses beside its name.
    cluster.run("scontrol", "update", "PartitionName=batch", "Hidden=YES")
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    python = tmp_path / "python"
    python.write_text(SLOW.format(python=sys.executable))
    python.chmod(0o755)
    described = ClusterConfig(
        name="test",
        partition="batch",
        nodes=2,
        folder=str(tmp_path / "jobs"),
        slow_node_factor=3,
        python=str(python),
        sbatch={"export": "NONE"},
        environment={"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
    )
    stage = StagePaths("toy", "toy_stage:run", "toy_stage:ToyConfig", parallel=True)
    for trial in range(3):  # a busy machine may slow the other nodes down as much
        (tmp_path / str(trial)).mkdir()
        report = submit(stage, ToyConfig(folder=str(tmp_path / str(trial)), steps=3), described)
        state = cluster.wait(report.job_id, ("COMPLETED", "FAILED"), timeout=240)
        assert state["JobState"] == "COMPLETED", logs(report.folder)
        if (report.folder / "attempts" / "attempt-2.json").exists():
            break
    first, second = [
        json.loads((report.folder / "attempts" / f"attempt-{number}.json").read_text()) for number in (1, 2)
    ]
    assert (first["outcome"], first["excluded"], first["nodes"]) == ("stopped", ["node2"], "node[1-2]")
    assert "node2: rank 1 took" in first["reason"]
    assert (second["outcome"], second["nodes"]) == ("done", "node[1,3]")
    assert [check["node"] for check in second["checks"]] == ["node1", "node3"]
    assert state["ExcNodeList"] == "node2"
    until(lambda: working_nodes("batch") == ["node1", "node2", "node3"], "all nodes at rest", 60)
    cluster.run("scontrol", "update", "NodeName=node3", "State=DRAIN", "Reason=test")
    assert working_nodes("batch") == ["node1", "node2"], "a drained node is no spare"
    script = submission_script(report.folder, report.job_id)
    try_out(script, 2, [])
    with pytest.raises(ControlError, match="not available"):
        try_out(script, 2, ["node2"])
    cluster.run("scontrol", "update", "NodeName=node3", "State=RESUME")
    until(lambda: working_nodes("batch") == ["node1", "node2", "node3"], "all nodes at work again", 60)
    try_out(script, 2, ["node2"])
    cluster.run("scontrol", "update", "NodeName=node[1-2]", "AvailableFeatures=fast", "ActiveFeatures=fast")
    constrained = tmp_path / "constrained.sh"
    constrained.write_text(script.read_text().replace("#SBATCH ", "#SBATCH --constraint=fast\n#SBATCH ", 1))
    try_out(constrained, 2, [])
    with pytest.raises(ControlError, match="not available"):
        try_out(constrained, 2, ["node2"])


SLOW = """#!/bin/sh
if [ "$(hostname)" = node2 ]; then
  (until grep -q libtorch_python /proc/$$/maps; do sleep 0.1; done
   while kill -STOP $$ 2>/dev/null; do sleep 0.2; kill -CONT $$; sleep 0.02; done) &
fi
exec {python} "$@"
"""


def test_a_job_of_all_nodes_makes_do_with_a_slow_one():
    from hvc.slurm.node_check import Timing, bad_nodes, spared

    timings = [Timing(rank, f"n{rank // 2}", 9.0 if rank == 5 else 0.1, 0.01) for rank in range(8)]
    bad = bad_nodes(timings, 5.0)
    assert list(bad) == ["n2"]
    nodes = ["n0", "n1", "n2", "n3"]
    assert spared(bad, nodes, [], needed=4) == []
    assert spared(bad, [*nodes, "n4"], [], needed=4) == ["n2"]
    assert spared(bad, [*nodes, "n4"], ["n4"], needed=4) == []
    assert bad_nodes(timings, 0) == {}
    assert list(bad_nodes(timings[4:6], 5.0)) == ["n2"], "of two ranks the slower one"
    disturbed = [Timing(rank, f"n{rank}", 0.001 * (1 + 20 * rank), 0.01) for rank in range(3)]
    assert bad_nodes(disturbed, 5.0) == {}, "a few milliseconds are no slow node"
    wrong = [Timing(0, "n0", float("inf"), 0.01), Timing(1, "n1", 0.1, 0.01)]
    assert list(bad_nodes(wrong, 0)) == ["n0"]
