"""Submitting, up to the point where Slurm itself takes over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvc.base.config import Config
from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import STAGE_VERSION
from hvc.slurm.allocation import Allocation, outside
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.jobfile import JobFile, read
from hvc.slurm.stages import STAGES, StagePaths, config_of, find, run_of
from hvc.slurm.submit import sbatch_text, submit

STAGE = StagePaths("toy", "toy_stage:run", "toy_stage:ToyConfig", parallel=True)


class Empty(Config):
    steps: int = 3


@pytest.fixture
def no_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_a_dry_run_needs_no_slurm_and_leaves_nothing(no_slurm, tmp_path):
    cluster = ClusterConfig(name="c", folder=str(tmp_path / "jobs"))
    report = submit("train", Empty(), cluster, dry_run=True)
    assert report.job_id is None
    assert report.sbatch.startswith("#!/bin/bash\n")
    assert f"#SBATCH --output={report.folder}/logs/slurm-%j.out" in report.sbatch
    assert not (tmp_path / "jobs").exists()


def test_a_dry_run_imports_no_stage():
    """It works where the stage's own dependencies are slow or missing."""
    code = (
        "import sys; from hvc.base.config import Config; from hvc.slurm.cluster import ClusterConfig\n"
        "from hvc.slurm.submit import submit\n"
        "submit('train', Config(), ClusterConfig(name='c'), dry_run=True)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_slurm_it_says_so_and_leaves_nothing(no_slurm, tmp_path):
    with pytest.raises(HvcError, match="no sbatch here"):
        submit("train", Empty(), ClusterConfig(name="c", folder=str(tmp_path / "jobs")))
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("size", [{"nodes": 2}, {"tasks_per_node": 2}])
@pytest.mark.parametrize("stage", ["shard", "evaluate"])
def test_a_stage_of_one_process_is_not_multiplied(no_slurm, stage, size):
    cluster = ClusterConfig(name="c", **size)
    with pytest.raises(UsageError, match=r"nodes is . and tasks_per_node .*configs/clusters/cpu\.yaml"):
        submit(stage, Empty(), cluster, dry_run=True)
    assert submit("train", Empty(), cluster, dry_run=True).sbatch
    assert submit(stage, Empty(), ClusterConfig(name="c"), dry_run=True).sbatch


@pytest.mark.parametrize(
    ("words", "said", "unsaid"),
    [
        ("invalid partition specified: gpx", "orrect the cluster's file", "scontrol ping"),
        ("Unable to contact slurm controller (connect failure)", "scontrol ping", "the cluster's file"),
    ],
)
def test_what_sbatch_says_is_said_once_with_the_right_advice(
    tmp_path, monkeypatch, capfd, words, said, unsaid
):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f"#!/bin/sh\necho 'sbatch: error: {words}' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(HvcError) as caught:
        submit("train", Empty(), ClusterConfig(name="c", folder=str(tmp_path / "jobs")))
    assert words in str(caught.value)
    assert said in str(caught.value)
    assert unsaid not in str(caught.value)
    assert words not in capfd.readouterr().err


@pytest.mark.services
def test_what_is_submitted_is_what_the_dry_run_showed(slurm_env, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    cluster = ClusterConfig(name="c", folder=str(tmp_path), partition="batch", sbatch={"hold": True})
    shown = submit(STAGE, Empty(steps=7), cluster, dry_run=True)
    first, second = (submit(STAGE, Empty(steps=7), cluster) for _ in range(2))
    slurm_env.run("scancel", first.job_id, second.job_id)
    assert first.folder != second.folder
    assert first.sbatch.replace(str(first.folder), "") == shown.sbatch.replace(str(shown.folder), "")
    assert (first.folder / f"{first.job_id}_submission.sh").read_text() == first.sbatch
    job = read(first.folder / "job.json")
    assert (job.stage, job.config, job.cluster) == (STAGE, {"steps": 7}, "c")
    written = b"".join(path.read_bytes() for path in first.folder.rglob("*") if path.is_file())
    assert b"hunter2" not in written


@pytest.mark.services
def test_a_folder_that_cannot_be_is_named(tmp_path, slurm_env):
    (tmp_path / "file").write_text("")
    cluster = ClusterConfig(name="c", folder=str(tmp_path / "file" / "jobs"))
    for unchecked in (False, True):
        with pytest.raises(HvcError, match=r"[Ss]et `folder` in the cluster's file"):
            submit("train", Empty(), cluster, unchecked=unchecked)


def test_the_job_file_is_refused_by_another_version(tmp_path):
    path = tmp_path / "job.json"
    JobFile(stage=STAGE, config={}, cluster="c", max_requeues=None).write(path)
    assert read(path).max_requeues is None
    data = json.loads(path.read_text())
    assert data["stage_version"] == STAGE_VERSION
    path.write_text(json.dumps({**data, "stage_version": STAGE_VERSION + 1}))
    with pytest.raises(HvcError, match="submit the job again"):
        read(path)
    with pytest.raises(HvcError, match="do all nodes share this folder"):
        read(tmp_path / "none.json")


def test_stages_are_found_by_name_and_imported_late(monkeypatch):
    assert set(STAGES) == {"shard", "train", "evaluate"}
    with pytest.raises(UsageError, match="did you mean 'evaluate'"):
        find("evalute")
    here = StagePaths("json", "json:dumps", "hvc.slurm.cluster:ClusterConfig")
    assert run_of(here) is json.dumps
    assert config_of(here) is ClusterConfig
    with pytest.raises(HvcError, match=r"cannot load json:nothing.*same version of hvc"):
        run_of(StagePaths("none", "json:nothing", ""))


def test_submitted_from_inside_a_job_nothing_of_that_one_is_handed_on(monkeypatch):
    """Another job's number of restarts would make a lost attempt of every one of the new job."""
    of_slurm = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_CLUSTERS": "here"}
    of_job = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2", "SLURM_MEM_PER_CPU": "1"}
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)

    def ours() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}

    for name, value in {**of_slurm, **of_job}.items():
        monkeypatch.setenv(name, value)
    with outside(""):
        assert ours() == of_slurm
    assert ours() == {**of_slurm, **of_job}
    monkeypatch.delenv("SLURM_JOB_ID")
    with outside(""):
        assert "SLURM_MEM_PER_CPU" in ours(), "set by hand"


def test_a_users_own_defaults_do_not_win_over_the_clusters_file(monkeypatch):
    names = {f"SBATCH_{name}" for name in ("PARTITION", "TIMELIMIT", "NO_REQUEUE", "ACCOUNT")}
    for name in names:
        monkeypatch.setenv(name, "1")
    script = sbatch_text(ClusterConfig(name="c", partition="gpu"), "hvc", Path("/jobs"))
    with outside(script):
        assert names & os.environ.keys() == {"SBATCH_ACCOUNT"}, "of which the file says nothing"
    assert names <= os.environ.keys()


def test_a_task_knows_its_place_and_attempt():
    slurm = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_JOB_NODELIST": "n[1-2]"}
    assert Allocation.of(slurm) == Allocation("7", 1, 3, 4, "n[1-2]")
    assert Allocation.of({**slurm, "SLURM_RESTART_COUNT": "2"}).attempt == 3
    with pytest.raises(HvcError, match="SLURM_JOB_ID is not set"):
        Allocation.of({})
