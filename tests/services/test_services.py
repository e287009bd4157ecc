"""The servers under the tests are real: each does here what the project needs of it."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from services.install import missing_packages
from services.processes import ProcessGroup, marked

pytestmark = pytest.mark.services
INSTALL = Path(__file__).with_name("install.py")


def test_s3_keeps_lists_and_refuses(s3):
    from botocore.exceptions import ClientError

    first, second = s3.bucket("plain"), s3.bucket("plain")
    assert (first, second) == ("s3://plain", "s3://plain-2")
    client = s3.client()
    client.put_object(Bucket="plain", Key="a/b.bin", Body=b"0123456789")
    assert client.get_object(Bucket="plain", Key="a/b.bin", Range="bytes=2-4")["Body"].read() == b"234"
    assert "Contents" not in client.list_objects_v2(Bucket="plain-2")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="plain", Key="a/b.bin", Body=b"", IfNoneMatch="*")


def test_s3_through_the_environment(s3_env, monkeypatch):
    import boto3

    from hvc.base.storage import open_store

    store = open_store(s3_env.bucket("by-env") + "/data")
    store.write("one", b"1")
    assert store.read("one") == b"1"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with pytest.raises(ValueError, match="access denied"):
        open_store("s3://by-env/data").read("one")


@pytest.mark.slow
def test_mlflow_survives_a_crash(private_mlflow_server, tmp_path):
    from mlflow import MlflowClient

    server = private_mlflow_server()
    client = MlflowClient(server.uri)
    run = client.create_run("0").info.run_id
    (tmp_path / "note.txt").write_text("kept")
    client.log_artifact(run, str(tmp_path / "note.txt"))
    server.kill()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{server.uri}/health", timeout=2)
    server.start()
    assert client.get_run(run).info.run_id == run
    assert Path(client.download_artifacts(run, "note.txt", str(tmp_path / "down"))).read_text() == "kept"


def test_slurm_runs_tasks_on_every_node(slurm_cluster, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\nsrun sh -c 'echo $SLURMD_NODENAME $SLURM_PROCID'\n")
    options = ["--parsable", "-N2", "--ntasks-per-node=2", f"--output={tmp_path}/out", "--time=1"]
    job = slurm_cluster.run("sbatch", *options, str(script)).strip()
    slurm_cluster.wait(job, "COMPLETED")
    assert sorted((tmp_path / "out").read_text().split("\n")[:-1]) == [
        "node1 0",
        "node1 1",
        "node2 2",
        "node2 3",
    ]
    assert slurm_cluster.run("sacct", "-o", "JobID,State", "--parsable2", "-j", job).split() == [
        "JobID|State",
        f"{job}|COMPLETED",
    ]


def test_slurm_requeues(slurm_cluster, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(f"#!/bin/sh\necho attempt $SLURM_RESTART_COUNT >> {tmp_path}/attempts\nsleep 300\n")
    job = slurm_cluster.run(
        "sbatch", "--parsable", "--requeue", "--time=5", "--output=/dev/null", str(script)
    ).strip()
    slurm_cluster.wait(job, "RUNNING")
    _until(lambda: _lines(tmp_path / "attempts") == 1)
    slurm_cluster.run("scontrol", "requeue", job)
    _until(lambda: _lines(tmp_path / "attempts") == 2)
    assert slurm_cluster.job(job)["Restarts"] == "1"
    slurm_cluster.run("scancel", job)


def test_sweep_finds_processes_that_left_the_session(tmp_path):
    group = ProcessGroup(tmp_path)
    group.start("tree", ["sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & wait"])
    _until(lambda: len(marked(group.mark)) == 3)
    group.close()
    assert marked(group.mark) == []


def test_a_killed_session_leaves_nothing(tmp_path):
    """SIGKILL runs no finalizer; the keeper is what cleans up then."""
    code = (
        "import sys, time, pathlib; from services.processes import ProcessGroup\n"
        "group = ProcessGroup(pathlib.Path(sys.argv[1])); group.start('s', ['sleep', '1000'])\n"
        "print(group.mark, flush=True); time.sleep(1000)"
    )
    path = str(Path(__file__).parents[1])
    session = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
    )
    mark = session.stdout.readline().decode().strip()
    assert len(marked(mark)) == 1
    session.kill()
    session.wait()
    _until(lambda: marked(mark) == [])


@pytest.mark.parametrize(("require", "code"), [("", 0), ("services", 1)])
def test_install_says_what_is_missing(require, code, tmp_path):
    if not missing_packages():
        done = subprocess.run([sys.executable, INSTALL], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    bare = (
        "import sys; sys.path.insert(0, sys.argv[1]); import install\n"
        "install.find = lambda command: None; sys.exit(install.main())"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "HVC_REQUIRE": require}
    done = subprocess.run(
        [sys.executable, "-c", bare, str(INSTALL.parent)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert "radosgw" in done.stderr
    assert "will skip" in done.stderr


def _until(ready, timeout=180):
    end = time.monotonic() + timeout
    while not ready():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.1)


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0
