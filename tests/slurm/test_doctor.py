"""The doctor meets real faults: dead ports, silent servers, folders that take nothing."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from hvc.base.addresses import public
from hvc.slurm.checks import Check, run_probes
from hvc.slurm.doctor import diagnose
from hvc.slurm.machine_checks import check_devices, check_disk, nearest_folder
from hvc.slurm.package_checks import wrong_packages
from hvc.slurm.service_checks import S3_VARIABLES, check_mlflow, check_s3, check_slurm, slurm_partitions

KEY, SECRET = "AKEXAMPLEKEY7890", "very-secret-word"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No S3, MLflow or Slurm of the machine that runs the tests."""
    names = (
        *S3_VARIABLES,
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "MLFLOW_TRACKING_URI",
        "SLURM_CONF",
    )
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def dead() -> str:
    """An address that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes the connection and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def use_s3(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    return {check.name: check for check in checks}


def test_this_machine(tmp_path: Path) -> None:
    checks = by_name(diagnose(tmp_path / "not" / "yet", seconds=30))
    assert list(checks)[:4] == ["python", "packages", "devices", "memory"]
    assert {"disk", "MLflow", "Slurm"} <= set(checks)
    assert not [name for name in checks if name.startswith("S3")]  # nobody asked for it
    for name in ("python", "packages", "devices", "MLflow"):
        assert checks[name].status == "ok", checks[name]
    assert f"torch {version('torch')}" in checks["packages"].found
    assert "mlflow.db" in checks["MLflow"].found
    assert list(tmp_path.iterdir()) == []  # no folder, no probe, no database left behind


def test_every_fault_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dead: str) -> None:
    use_s3(monkeypatch, dead)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "file").write_text("in the way")
    checks = by_name(diagnose(tmp_path / "file", dead, "s3://bucket/prefix", seconds=30))
    assert checks["disk"].status == checks["MLflow"].status == checks["S3 endpoint"].status == "fail"
    assert checks["S3 credentials"].status == "ok"
    assert checks["Slurm"].status == "warn"
    assert "S3 bucket" not in checks
    text = repr(checks)
    assert SECRET not in text
    assert KEY not in text
    assert "...7890" in text
    for check in checks.values():
        assert (check.status == "ok") == (check.advice == "")
        assert check.advice == "" or check.advice.strip()[-1] in ".'"


def test_silent_servers_cost_bounded_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent: str
) -> None:
    use_s3(monkeypatch, silent)
    start = time.monotonic()
    checks = by_name(diagnose(tmp_path, silent, "s3://bucket", seconds=2))
    assert time.monotonic() - start < 15, "one after the other, and without a limit, it would be minutes"
    assert "timed out" in checks["MLflow"].found
    assert checks["S3 endpoint"].status == "ok"  # it took the connection
    assert checks["S3"].status == "fail"  # the object was never answered
    assert "2 s" in checks["S3"].found


def test_mlflow_address_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dead: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead.replace("http://", "http://user:hunter2@"))
    (check,) = [check for check in diagnose(tmp_path, seconds=30) if check.name == "MLflow"]
    assert check.status == "fail"
    assert dead in check.found
    assert "hunter2" not in repr(check)


def test_the_doctor_itself_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from hvc.slurm.doctor import diagnose; diagnose(Path('.'));"
        "sys.exit(any(name in sys.modules for name in ('torch', 'mlflow', 'deepspeed', 'webdataset')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("requirement", "wrong"),
    [
        ("numpy>=2", {}),
        ("numpy>=1000", {"numpy>=1000": version("numpy")}),
        ("no-such-thing-anywhere>=1", {"no-such-thing-anywhere>=1": None}),
        ("no-such-thing-anywhere; extra == 'demo'", {}),
        ("no-such-thing-anywhere; python_version < '3'", {}),
    ],
)
def test_wrong_packages(requirement: str, wrong: dict[str, str | None]) -> None:
    assert wrong_packages([requirement]) == wrong


def test_torch_that_is_too_slow_is_a_warning() -> None:
    (check,) = check_devices(0.01)
    assert check.status == "warn"
    assert "did not start" in check.found


def test_a_file_as_output_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    (check,) = check_disk(tmp_path / "out")
    assert (check.status, check.name) == ("fail", "disk")
    assert str(tmp_path / "out") in check.found


def test_a_closed_output_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write anywhere (root)")
    (check,) = check_disk(closed / "run")
    assert check.status == "fail"
    closed.chmod(0o000)
    (check,) = check_disk(closed / "run" / "1")
    assert check.status == "fail"


def test_nearest_folder(tmp_path: Path) -> None:
    assert nearest_folder(tmp_path / "a" / "b") == tmp_path
    assert nearest_folder(tmp_path) == tmp_path


def test_sqlite_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
    (check,) = check_mlflow(f"sqlite:///{path}", 1)
    assert check.status == "ok"
    before = path.read_bytes()
    with sqlite3.connect(path) as writer:
        writer.execute("BEGIN IMMEDIATE")
        (check,) = check_mlflow(f"sqlite:///{path}", 0.1)
        assert check.status == "fail"
        assert "locked" in check.found
    assert path.read_bytes() == before


def test_sqlite_that_is_no_database_or_has_no_place(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("certainly not a database, and long enough to be looked at" * 4)
    for each in (path, path / "below" / "a-file.db"):
        (check,) = check_mlflow(f"sqlite:///{each}", 1)
        assert check.status == "fail"
        assert check.advice


@pytest.mark.parametrize(
    "uri", ["http://[bad", "http://no.such.host.invalid:5000", "postgresql://u:pw@h/db"]
)
def test_odd_tracking_addresses_raise_nothing(uri: str) -> None:
    (check,) = check_mlflow(uri, 1)
    assert check.status in ("warn", "fail")
    assert "pw" not in repr(check)


def test_s3_without_credentials(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", dead)
    (check,) = check_s3("s3://bucket", 1)
    assert (check.name, check.status) == ("S3 credentials", "fail")
    assert "AWS_ACCESS_KEY_ID" in check.advice


def test_s3_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    (check,) = check_s3(None, 1)
    assert check.status == "fail"
    assert "nobody" in check.found


def test_s3_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, "not-an-address")
    checks = by_name(list(check_s3("s3://bucket", 1)))
    assert checks["S3 endpoint"].status == "fail"


def test_no_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = check_slurm(1)
    assert check.status == "warn"
    assert "no sbatch and no sinfo" in check.found


def test_slurm_commands_that_fail_or_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'sinfo: error: Unable to contact' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    (check,) = check_slurm(5)
    assert check.status == "fail"
    assert "Unable to contact" in check.found
    (tmp_path / "sinfo").write_text("#!/bin/sh\nexec sleep 30\n")
    (check,) = check_slurm(0.2)
    assert check.status == "fail"
    assert "no answer" in check.found


def test_partitions() -> None:
    ok = slurm_partitions("debug*|up|2\ngpu|up|30\ngpu|up|2\nold|down|4\n")
    assert (ok.status, ok.found) == ("ok", "partitions debug* (2 nodes); gpu (32 nodes)")
    assert slurm_partitions("old|down|4\n").status == "fail"
    assert slurm_partitions("").status == "fail"


def test_a_broken_or_hanging_probe_hides_nothing() -> None:
    def broken() -> Iterator[Check]:
        yield Check("one", "ok", "found before")
        raise KeyError(SECRET)

    def hanging() -> Iterator[Check]:
        yield Check("two", "ok", "found before")
        time.sleep(5)

    def good() -> Iterator[Check]:
        yield Check("three", "ok", "fine")

    start = time.monotonic()
    checks = run_probes({"a": broken, "b": hanging, "c": good}, seconds=0.3)
    assert time.monotonic() - start < 10
    assert [(c.name, c.status) for c in checks] == [
        ("one", "ok"), ("a", "fail"), ("two", "ok"), ("b", "fail"), ("three", "ok")
    ]  # fmt: skip
    assert SECRET not in repr(checks)


def test_public_addresses() -> None:
    assert public("https://user:pw@host:5000/path?token=x") == "https://host:5000/path"
    assert public("sqlite:///a/b.db") == "sqlite:///a/b.db"
    assert public("s3://bucket/prefix") == "s3://bucket/prefix"


@pytest.mark.services
def test_a_real_s3_server(s3_env, monkeypatch: pytest.MonkeyPatch) -> None:
    address = s3_env.bucket("doctor")
    checks = by_name(list(check_s3(f"{address}/some/prefix", 3)))
    assert [check.status for check in checks.values()] == ["ok", "ok", "ok"]
    assert "Contents" not in s3_env.client().list_objects_v2(Bucket=address.removeprefix("s3://"))
    missing = by_name(list(check_s3("s3://no-such-bucket-here", 3)))
    assert missing["S3 bucket"].status == "fail"
    assert "no such bucket" in missing["S3 bucket"].found
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it remembers the first credentials it saw
    denied = by_name(list(check_s3(address, 3)))
    assert denied["S3 bucket"].status == "fail"
    assert "denied" in denied["S3 bucket"].found
    assert SECRET not in repr(denied)


@pytest.mark.services
def test_a_real_mlflow_server(mlflow_server) -> None:
    (check,) = check_mlflow(mlflow_server.uri, 3)
    assert (check.status, check.found) == ("ok", f"{mlflow_server.uri} answers")
    (check,) = check_mlflow(f"{mlflow_server.uri}/elsewhere", 3)
    assert check.status == "fail"


@pytest.mark.services
def test_a_real_cluster(slurm_env) -> None:
    (check,) = check_slurm(5)
    assert check.status == "ok"
    assert "partitions" in check.found
