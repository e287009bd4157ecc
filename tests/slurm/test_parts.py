"""A stage in parts: two scripts, one config per part."""

import json

import pytest

from hvc.base.config import Config
from hvc.base.errors import HvcError, UsageError
from hvc.slurm.allocation import Allocation
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.parts import submit_parts


class Empty(Config):
    parts: int = 3


def test_a_dry_run_shows_both_scripts_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = ClusterConfig(name="c", folder=str(tmp_path / "jobs"))
    report = submit_parts("shard", Empty(), 3, cluster, dry_run=True)
    assert (report.job_id, report.join_job_id) == (None, None)
    assert "#SBATCH --array=0-2%3" in report.sbatch
    assert f"#SBATCH --output={report.folder}/logs/slurm-%A_%a.out" in report.sbatch
    assert "--array" not in report.join_sbatch
    assert "#SBATCH --dependency=afterany:ARRAY_JOB_ID" in report.join_sbatch
    assert "#SBATCH --job-name=hvc-shard-join" in report.join_sbatch
    for script in (report.sbatch, report.join_sbatch):
        assert "#SBATCH --requeue" in script
    assert not (tmp_path / "jobs").exists()


def test_what_cannot_be_done_in_parts(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="two parts or more"):
        submit_parts("shard", Empty(), 1, ClusterConfig(name="c"), dry_run=True)
    with pytest.raises(UsageError, match="tasks_per_node"):
        submit_parts("shard", Empty(), 2, ClusterConfig(name="c", nodes=2), dry_run=True)
    with pytest.raises(HvcError, match="no sbatch here"):
        submit_parts("shard", Empty(), 2, ClusterConfig(name="c", folder=str(tmp_path / "jobs")))
    assert not (tmp_path / "jobs").exists()


def test_a_task_of_an_array_is_named_so_that_it_alone_is_requeued():
    slurm = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NODELIST": "n1"}
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert Allocation.of(slurm).job_id == "7"
    assert Allocation.of({**slurm, **array}).job_id == "7_2"


@pytest.mark.services
def test_what_is_submitted_is_what_the_dry_run_showed(slurm_env, tmp_path):
    cluster = ClusterConfig(name="c", folder=str(tmp_path), partition="batch", sbatch={"hold": True})
    shown = submit_parts("shard", Empty(), 3, cluster, dry_run=True)
    report = submit_parts("shard", Empty(), 3, cluster)
    slurm_env.run("scancel", report.job_id, report.join_job_id)
    assert report.sbatch.replace(str(report.folder), "") == shown.sbatch.replace(str(shown.folder), "")
    assert (report.folder / f"{report.job_id}_submission.sh").read_text() == report.sbatch
    assert (report.folder / f"{report.join_job_id}_submission.sh").read_text() == report.join_sbatch
    configs = [
        json.loads((report.folder / f"job-{which}.json").read_text())["config"]
        for which in ("part-0", "part-1", "part-2", "join")
    ]
    assert configs == [{"parts": 3, "part": part} for part in range(3)] + [{"parts": 3}]
