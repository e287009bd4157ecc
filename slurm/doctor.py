"""Is this machine ready? Packages, devices, memory, disk, S3, MLflow and Slurm, within seconds."""

import os
from pathlib import Path

from hvc.pretrain.tracking.tracking_uri import default_uri
from hvc.slurm.checks import Check, run_probes
from hvc.slurm.machine_checks import check_devices, check_disk, check_memory
from hvc.slurm.package_checks import check_packages, check_python
from hvc.slurm.service_checks import S3_VARIABLES, check_mlflow, check_s3, check_slurm


def diagnose(
    output: Path, tracking_uri: str | None = None, s3: str | None = None, seconds: float = 8.0
) -> list[Check]:
    """Look at everything that a run needs, all at once, for at most `seconds`.

    Args:
        output: the folder that runs write to; it is not created, a probe file in it is removed.
        tracking_uri: MLflow's address; None: MLFLOW_TRACKING_URI, else outputs/mlflow.db.
        s3: `s3://bucket[/prefix]` to write a probe object to (and delete it). None: S3 is looked at
            only when the environment names keys, a profile or an endpoint.
        seconds: what has not answered by then counts as failed.

    Nothing that is absent raises, and no check shows a password or more than the last four
    characters of a key id.
    """
    uri = tracking_uri or default_uri()
    probes = {
        "python": check_python,
        "packages": check_packages,
        "devices": lambda: check_devices(0.9 * seconds),
        "memory": check_memory,
        "disk": lambda: check_disk(output),
        "S3": lambda: check_s3(s3, 0.4 * seconds),
        "MLflow": lambda: check_mlflow(uri, 0.4 * seconds),
        "Slurm": lambda: check_slurm(0.6 * seconds),
    }
    if s3 is None and not any(os.environ.get(name) for name in S3_VARIABLES):
        del probes["S3"]
    return run_probes(probes, seconds)
