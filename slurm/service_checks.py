"""What this machine can reach: S3, MLflow, Slurm. Every wait is bounded, no secret is shown."""

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.base.storage import open_store, s3_client
from hvc.slurm.checks import Check, Status
from hvc.slurm.machine_checks import nearest_folder, unwritable

S3_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_SET_KEYS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
_NO_SERVER = (
    "Start the server, or correct its address: tracking.uri of the recipe, --tracking-uri, `mlflow` of the "
    "cluster's file or MLFLOW_TRACKING_URI."
)


def check_s3(address: str | None, seconds: float) -> Iterator[Check]:
    """Credentials, then the endpoint, then (with an address) a probe object put, read and deleted.

    `seconds` bounds the connection to the endpoint; a check that failed ends the row.
    """
    for check in (_credentials(), _endpoint(seconds)):
        yield check
        if check.status == "fail":
            return
    if address is not None:
        yield _bucket(address)


def _credentials() -> Check:
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        keys = boto3.Session().get_credentials()  # a session of its own: the default one is not thread-safe
    except BotoCoreError as error:
        return Check("S3 credentials", "fail", str(error), _SET_KEYS)
    if keys is None:
        return Check("S3 credentials", "fail", "none", _SET_KEYS)
    return Check("S3 credentials", "ok", f"access key id ...{keys.access_key[-4:]} (from {keys.method})")


def _endpoint(seconds: float) -> Check:
    from botocore.exceptions import BotoCoreError

    advice = "Start the server, or correct AWS_ENDPOINT_URL_S3 (and AWS_DEFAULT_REGION)."
    try:
        url = s3_client().meta.endpoint_url
    except (BotoCoreError, ValueError) as error:  # no such profile; an endpoint that is no address
        return Check("S3 endpoint", "fail", f"cannot make a client: {type(error).__name__}", advice)
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return Check("S3 endpoint", "ok", f"{public(url)}, by way of a proxy (not asked here)")
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        return Check("S3 endpoint", "fail", f"{public(url)}: {error.strerror or error}", advice)
    return Check("S3 endpoint", "ok", f"{public(url)} answers")


def _bucket(address: str) -> Check:
    if not address.startswith("s3://"):
        return Check("S3 bucket", "fail", f"{address} is no S3 address", "Write it as s3://bucket/prefix.")
    name, data = f".hvc-doctor-{uuid.uuid4().hex}", uuid.uuid4().bytes
    try:
        store = open_store(address)
        store.write(name, data)
        same = store.read(name) == data
        store.delete(name)
    except HvcError as error:
        advice = "Correct the address, or ask the bucket's owner for the right to put, get and delete."
        return Check("S3 bucket", "fail", str(error), advice)
    if not same:
        advice = "Don't train on this store: it returns other bytes than were written."
        return Check("S3 bucket", "fail", f"{store.where(name)} came back different", advice)
    return Check("S3 bucket", "ok", f"{store.address} takes, returns and deletes objects")


def check_mlflow(uri: str, seconds: float) -> Iterator[Check]:
    """Whether the tracking server answers within `seconds`, or the SQLite file takes a writer."""
    if uri.startswith(("http://", "https://")):
        yield _mlflow_server(uri, seconds)
    elif uri.startswith("sqlite:///"):
        yield _mlflow_file(Path(unquote(uri.removeprefix("sqlite:///")).partition("?")[0]), seconds)
    else:
        advice = (
            "Use an MLflow server (http://...) or sqlite:///PATH; a short run shows whether this one works."
        )
        yield Check("MLflow", "warn", f"{public(uri)} is not looked into", advice)


def _mlflow_server(uri: str, seconds: float) -> Check:
    try:
        with urllib.request.urlopen(f"{public(uri).rstrip('/')}/health", timeout=seconds) as answer:  # noqa: S310
            healthy = answer.status == 200 and answer.read(64).strip() == b"OK"
    except urllib.error.HTTPError as error:
        advice = (
            "Correct the address; if the server wants a login, set MLFLOW_TRACKING_USERNAME and _PASSWORD."
        )
        return Check("MLflow", "fail", f"{public(uri)} answers /health with {error.code}", advice)
    except (OSError, ValueError) as error:  # refused, too slow, unknown host, no valid address
        reason = getattr(error, "reason", error)
        return Check("MLflow", "fail", f"{public(uri)} does not answer: {reason}", _NO_SERVER)
    if healthy:
        return Check("MLflow", "ok", f"{public(uri)} answers")
    return Check("MLflow", "fail", f"{public(uri)} answers, but not as MLflow does", _NO_SERVER)


def _mlflow_file(path: Path, seconds: float) -> Check:
    advice = "Choose another file with tracking_uri=sqlite:///PATH (or MLFLOW_TRACKING_URI), or a server."
    if not os.access(path, os.F_OK):
        problem = unwritable(nearest_folder(path.parent))
        if problem:
            return Check("MLflow", "fail", f"cannot make {path}: {problem}", advice)
        return Check("MLflow", "ok", f"{path} (will be made by the first run)")
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=seconds)) as database:
            database.execute("BEGIN IMMEDIATE")  # a writer's lock, given back at once
            database.rollback()
    except sqlite3.Error as error:
        return Check("MLflow", "fail", f"cannot write {path}: {error}", advice)
    return Check("MLflow", "ok", f"{path}, writable")


def check_slurm(seconds: float) -> Iterator[Check]:
    """Whether sbatch and sinfo are here and a controller answers sinfo within `seconds`."""
    absent = [name for name in ("sbatch", "sinfo") if shutil.which(name) is None]
    if absent:
        advice = "Only `submit` needs it: run that on a login node of the cluster."
        yield Check("Slurm", "warn", f"no {' and no '.join(absent)} on PATH", advice)
        return
    advice = "See `sinfo` and `scontrol ping`; set SLURM_CONF, or ask the cluster's administrators."
    try:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%P|%a|%D"],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield Check("Slurm", "fail", f"sinfo gave no answer within {seconds:.0f} s", advice)
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        # the commands alone promise nothing: only where a cluster is configured is this a fault
        status: Status = "fail" if _slurm_is_configured() else "warn"
        yield Check("Slurm", status, f"no cluster answers: {last}", advice)
        return
    yield slurm_partitions(done.stdout)


def _slurm_is_configured() -> bool:
    return bool(os.environ.get("SLURM_CONF")) or Path("/etc/slurm/slurm.conf").exists()


def slurm_partitions(text: str) -> Check:
    """The check for sinfo's lines `name|availability|nodes`; the default partition's name ends in `*`."""
    rows = [line.strip().split("|") for line in text.splitlines() if line.count("|") == 2]
    nodes: dict[str, int] = {}
    for name, state, count in rows:
        if state == "up":
            nodes[name] = nodes.get(name, 0) + int(count)
    found = "; ".join(f"{name} ({count} nodes)" for name, count in nodes.items())
    if nodes:
        return Check("Slurm", "ok", f"partitions {found}")
    advice = "Ask the cluster's administrators for a partition that is up and open to you."
    return Check("Slurm", "fail", f"no partition is up ({len(rows)} listed)", advice)
