"""Looks at all that a job needs before it is queued: better refused now than after two days of waiting."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import which

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep.manifest import read_manifest
from hvc.pretrain.tracking.tracking_uri import uri_of_run
from hvc.slurm.allocation import outside
from hvc.slurm.checks import Check, Probe, run_probes
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.known_jobs import plain_environment
from hvc.slurm.machine_checks import check_disk
from hvc.slurm.partitions import FORMAT, check_partition, parse
from hvc.slurm.places import Places
from hvc.slurm.refusal import refusal
from hvc.slurm.rivals import rivals
from hvc.slurm.service_checks import check_mlflow, check_s3

_SECONDS = 20.0
_OTHERWISE = {"clusters", "partition", "time", "nodes", "ntasks_per_node", "cpus_per_task", "mem", "gres"}
"""Options of sbatch that say something else than the keys of a cluster's file; sbatch alone judges them."""
_OF_ONE_MACHINE = {"tmpfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "overlay", "ramfs"}


def preflight(places: Places, cluster: ClusterConfig, script: str, waits: bool = False) -> list[Check]:
    """What is wrong with a job, or may be; what is in order is left out.

    Args:
        script: The sbatch script, which Slurm is asked about without queueing it.
        waits: The job begins after another, which may make what it reads.
    """
    folder = str(cluster.place)
    paths = dict.fromkeys([folder, *places.outputs, *places.inputs, *places.datasets])
    local = [str(Path(path).absolute()) for path in paths if "://" not in path]
    probes: dict[str, Probe] = {
        "shape": lambda: _shape(places, cluster),
        "shared": lambda: _shared(local, cluster),
        "job folder": lambda: _disk("job folder", folder, "Set `folder` in the cluster's file."),
    }
    for address in places.outputs:
        probes[f"output {address}"] = partial(_output, address)
    if not waits:  # what it waits for may be what writes there now
        if places.sole:
            probes["rivals"] = lambda: rivals(cluster.place, places.outputs[0])
        probes |= {f"input {address}": partial(_input, address) for address in places.inputs}
        probes |= {f"data {address}": partial(_dataset, address) for address in places.datasets}
    if places.tracked:
        probes["MLflow"] = lambda: _mlflow(_tracking_uri(places))
    if cluster.executor == "slurm" and which("sbatch"):
        probes["Slurm"] = lambda: _slurm(cluster, script)
    with environment_of(cluster), outside(script):
        found = run_probes(probes, _SECONDS)
    return list(dict.fromkeys(check for check in found if check.status != "ok"))


@contextmanager
def environment_of(cluster: ClusterConfig) -> Iterator[None]:
    """The servers that the job will speak with, for as long as it is looked for them."""
    ours = {key: value for key, value in cluster.variables.items() if key.startswith(("AWS_", "MLFLOW_"))}
    before = {key: os.environ.get(key) for key in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _tracking_uri(places: Places) -> str:
    folder = next((path for path in places.outputs if "://" not in path), ".")
    return uri_of_run(Path(folder), places.tracking_uri)


def _disk(name: str, folder: str, advice: str) -> Iterator[Check]:
    for check in check_disk(Path(folder)):
        yield Check(name, check.status, check.found, advice)


def _mlflow(uri: str) -> Iterator[Check]:
    for check in check_mlflow(uri, 0.4 * _SECONDS):
        # A proxy before it wants the login that the job has, and this look does not send.
        login = check.status == "fail" and check.found.endswith(("with 401", "with 403"))
        yield Check(check.name, "warn", check.found, check.advice) if login else check


def _shape(places: Places, cluster: ClusterConfig) -> Iterator[Check]:
    if places.workers and places.workers >= cluster.cpus_per_task > 0:
        found = f"{places.workers} loader workers and the process itself share {cluster.cpus_per_task} CPUs"
        advice = f"Set cpus_per_task to {places.workers + 1}, or lower `workers` of the recipe."
        yield Check("CPUs per task", "warn", found, advice)
    if places.workers and cluster.gpus_per_node > cluster.tasks_per_node:
        found = f"{cluster.tasks_per_node} processes on a node with {cluster.gpus_per_node} GPUs"
        advice = "Set tasks_per_node to gpus_per_node: a process uses one GPU."
        yield Check("GPUs", "warn", found, advice)


def _shared(paths: list[str], cluster: ClusterConfig) -> Iterator[Check]:
    """Whether the nodes see these paths, as far as the cluster's file or the kind of file system says."""
    if cluster.executor == "local":
        return
    for path in paths:
        if cluster.shared:
            if not any(Path(path).is_relative_to(folder) for folder in cluster.shared):
                advice = f"Move it below {' or '.join(cluster.shared)}, or add its folder to `shared`."
                yield Check("shared storage", "fail", f"{path} is on none of the shared folders", advice)
        elif (kind := _file_system(path)) in _OF_ONE_MACHINE:
            advice = "Use shared storage; if the nodes do see it, name its folder in `shared`."
            yield Check("shared storage", "warn", f"{path} looks local to this machine ({kind})", advice)


def _file_system(path: str) -> str:
    """Kind of the file system that a path is, or would be, on; empty where nobody says."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    mounts = [(fields[1], fields[2]) for fields in map(str.split, lines) if len(fields) > 2]
    over = [(point, kind) for point, kind in mounts if Path(path).is_relative_to(point)]
    return max(over, key=lambda mount: len(mount[0]), default=("", ""))[1]


def _output(address: str) -> Iterator[Check]:
    if address.startswith("s3://"):
        yield from check_s3(address, 0.3 * _SECONDS)
    else:
        yield from _disk("output", address, "Choose another `output`, or make room there.")


def _input(address: str) -> Iterator[Check]:
    if address.startswith("s3://"):
        yield from check_s3(None, 0.3 * _SECONDS)
    elif not Path(address).exists():
        advice = "Correct the path, or copy the data there."
        yield Check("input", "fail", f"there is no {address} here", advice)


def _dataset(address: str) -> Iterator[Check]:
    if address.startswith("s3://"):
        for check in check_s3(None, 0.3 * _SECONDS):
            yield check
            if check.status == "fail":
                return
    try:
        read_manifest(open_store(address))
    except HvcError as error:
        advice = "Correct `data`; `hvc verify` says more of a dataset, `hvc shard` makes one."
        yield Check("data", "fail", str(error), advice)


def _slurm(cluster: ClusterConfig, script: str) -> Iterator[Check]:
    try:
        yield from _of_slurm(cluster, script)
    except subprocess.TimeoutExpired as error:
        found = f"{error.cmd[0]} gave no answer within {error.timeout:.0f} s"
        yield Check("Slurm", "fail", found, "See `scontrol ping`, then submit again.")


def _of_slurm(cluster: ClusterConfig, script: str) -> Iterator[Check]:
    answer = _asked(["sinfo", "--all", "--noheader", "--exact", "--noconvert", f"--format={FORMAT}"])
    otherwise = {key.replace("-", "_") for key in cluster.sbatch} & _OTHERWISE
    known = answer.returncode == 0 and not otherwise
    found = list(check_partition(cluster, parse(answer.stdout))) if known else []
    yield from found
    if found:  # sbatch would say the same once more, with less advice
        return
    test = _asked(["sbatch", "--test-only"], script)
    if test.returncode != 0:
        last = (test.stderr.strip() or f"exit code {test.returncode}").splitlines()[-1]
        words, _, advice = refusal(last.removeprefix("allocation failure: ")).partition("; ")
        yield Check("Slurm", "fail", words, f"{advice[:1].upper()}{advice[1:]}.")


def _asked(command: list[str], text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        timeout=0.9 * _SECONDS,
        check=False,
        env=plain_environment(),
    )
