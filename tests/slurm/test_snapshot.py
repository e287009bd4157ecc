"""A job runs from the copy of its code that was taken when it was submitted."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hvc.base.config import Config
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.snapshot import ROOT, changed_packages, code_path, take

HERE = Path(__file__).parent
CLUSTER = ClusterConfig(name="c")
SECRET = "hunter2-of-the-snapshot"


class Small(Config):
    steps: int = 3


def python(code: str, folder: Path, cwd: Path) -> str:
    """What a Python says that has the snapshot first on its path, started in `cwd`."""
    env = os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(code_path(folder))}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


def copy_of_the_checkout(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(ROOT / "hvc.py", folder)
    for room in ("base", "data_prep", "pretrain", "evaluation", "slurm", "demo", "configs"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_it_is_quick_and_small(tmp_path):
    begin = time.monotonic()
    take(tmp_path, Small(), CLUSTER)
    assert time.monotonic() - begin < 5  # benchmarks measure it; at rest it is 0.2 s
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 5e6


def test_code_comes_from_it_even_inside_of_the_checkout(tmp_path):
    take(tmp_path, Small(), CLUSTER)
    code = "import hvc, hvc.slurm.job; print(hvc.__file__); print(hvc.slurm.job.__file__)"
    door, job = python(code, tmp_path, ROOT).split()
    assert Path(door) == code_path(tmp_path) / "hvc" / "__init__.py"
    assert Path(job) == code_path(tmp_path) / "hvc" / "slurm" / "job.py"


def test_it_is_the_same_code_to_the_runs_record(tmp_path):
    from hvc.pretrain.tracking.provenance_facts import code_facts

    take(tmp_path, Small(), CLUSTER)
    code = (
        "import json; from hvc.pretrain.tracking.provenance_facts import code_facts; "
        "print(json.dumps(code_facts()))"
    )
    assert json.loads(python(code, tmp_path, tmp_path)) == code_facts()


def test_the_copied_command_works(tmp_path):
    take(tmp_path, Small(), CLUSTER)
    assert "pretrain HVC" in python(
        "import sys, hvc; sys.argv[1:] = ['--help']; hvc.main()", tmp_path, tmp_path
    )


def test_only_code_is_taken_and_nothing_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    checkout = copy_of_the_checkout(tmp_path / "checkout")
    for name in (".env", "credentials.txt", "configs/.env.yaml", "base/secrets"):
        (checkout / name).write_text("AWS_SECRET_ACCESS_KEY=hunter2")
    monkeypatch.setattr("hvc.slurm.snapshot.ROOT", checkout)
    snapshot = take(tmp_path / "job", Small(), CLUSTER)
    files = [path for path in snapshot.rglob("*") if path.is_file()]
    assert not [path for path in files if b"hunter2" in path.read_bytes()]
    assert {path.suffix for path in files} <= {".py", ".js", ".css", ".yaml", ".json", ".txt"}
    assert not [path for path in files if path.stat().st_mode & 0o222]


def test_config_and_versions_can_be_read_back(tmp_path):
    snapshot = take(tmp_path, Small(steps=7), ClusterConfig(name="big", nodes=4))
    assert Small.load(snapshot / "config.yaml") == Small(steps=7)
    assert ClusterConfig.load(snapshot / "cluster.yaml").nodes == 4
    packages = snapshot / "packages.txt"
    assert changed_packages(tmp_path) == []
    lines = packages.read_text().splitlines()
    assert [line for line in lines if line.startswith("numpy==")]
    packages.chmod(0o644)
    packages.write_text("numpy==0.1\nno-such-package==2\n")
    first, second = changed_packages(tmp_path)
    assert first.startswith("numpy==0.1, now ")
    assert second == "no-such-package==2, now missing"


@pytest.mark.services
@pytest.mark.slow
def test_a_requeued_job_runs_the_old_code_after_the_checkout_has_changed(slurm_env, tmp_path):
    checkout = copy_of_the_checkout(tmp_path / "checkout")
    settings = {"name": "test", "partition": "batch", "nodes": 2, "time_minutes": 10, "grace_seconds": 30}
    settings["environment"] = {"PYTHONPATH": f"{HERE}:{checkout}", "OMP_NUM_THREADS": "1"}
    (tmp_path / "cluster.yaml").write_text(json.dumps({**settings, "folder": str(tmp_path / "jobs")}))
    code = f"""
from toy_stage import ToyConfig
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.stages import StagePaths
from hvc.slurm.submit import submit
stage = StagePaths("toy", "toy_stage:run", "toy_stage:ToyConfig", parallel=True)
config = ToyConfig(folder={str(tmp_path)!r}, steps=20, step_seconds=0.2)
print(submit(stage, config, ClusterConfig.load({str(tmp_path / "cluster.yaml")!r})).job_id)
"""
    env = os.environ | {"PYTHONPATH": f"{HERE}:{checkout}", "AWS_SECRET_ACCESS_KEY": SECRET}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    job_id, events = done.stdout.strip(), tmp_path / "events"
    end = time.monotonic() + 90
    while not (events.exists() and "step 2" in events.read_text()):
        assert time.monotonic() < end, "it did not begin"
        time.sleep(0.1)
    shown = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert [words for words in shown if words and str(tmp_path / "jobs") in " ".join(words)]
    assert not [words for words in shown if words and SECRET in " ".join(words)]
    packages = next((tmp_path / "jobs").rglob("packages.txt"))
    packages.chmod(0o644)
    packages.write_text("torch==0.1\n")
    for path in [checkout / "hvc.py", *checkout.rglob("slurm/*.py"), *checkout.rglob("base/*.py")]:
        path.write_text("raise SystemExit('this is the new code')\n")
    slurm_env.run("scancel", "--signal=USR2", job_id)
    job = slurm_env.wait(job_id, ("COMPLETED", "FAILED", "CANCELLED"), timeout=120)
    logs = "\n".join(path.read_text() for path in (tmp_path / "jobs").rglob("*.log"))
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), logs
    assert "this is the new code" not in logs
    assert logs.count("installed now in other versions than at submission: torch==0.1, now ") == 1
    files = [path for path in (tmp_path / "jobs").rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
