"""Jobs without Slurm are listed, stopped and taken up again like any other."""

import json
import time
from pathlib import Path

import pytest
from running import run_hvc

from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.stages import StagePaths
from hvc.slurm.submit import submit

HERE = Path(__file__).parent
STAGE = StagePaths("toy", "toy_stage:run", "toy_stage:ToyConfig", parallel=True)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A submitted job of one process that takes long."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SLURM_CONF", "/nowhere")
    from toy_stage import ToyConfig

    cluster = ClusterConfig(
        name="here",
        executor="local",
        folder=str(tmp_path / "jobs"),
        environment={"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"},
    )
    config = ToyConfig(folder=str(tmp_path), steps=200, step_seconds=0.1)
    yield submit(STAGE, config, cluster, name="toy", unchecked=True)
    run_hvc("cancel", "toy", "--now", cwd=tmp_path)


def told(*arguments: str) -> dict:
    done = run_hvc(*arguments, "--json", cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for(state: str) -> dict:
    end = time.monotonic() + 120
    while (row := told("jobs")["submissions"][0]["jobs"][0])["state"] != state:
        assert time.monotonic() < end, row
        time.sleep(0.2)
    return row


def test_stopped_for_good_and_taken_up_again(job, tmp_path):
    wait_for("running")
    end = time.monotonic() + 180
    while "step 2" not in ((tmp_path / "events").read_text() if (tmp_path / "events").exists() else ""):
        assert time.monotonic() < end
        time.sleep(0.1)
    told("cancel", "toy")
    assert wait_for("stopped")["attempt"] == 1
    saved = int((tmp_path / "step").read_text())
    assert 0 < saved < 200
    assert told("requeue", "toy")["jobs"][0] != job.job_id
    assert wait_for("done")["attempt"] == 2
    assert f"attempt 2 from {saved}" in (tmp_path / "events").read_text()
    refused = run_hvc("resize", "toy", "--nodes", "2", cwd=tmp_path)
    assert refused.returncode == 2
    assert "no job of several nodes" in refused.stderr
