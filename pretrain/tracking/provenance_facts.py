"""What ran: the code by commit and by its own bytes, the packages, the machine."""

import functools
import hashlib
import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from hvc.base.code_origin import code_origin

ROOT = Path(__file__).resolve().parents[2]
"""Folder that holds the rooms: a checkout, or the installed package."""
_ROOMS = ("base", "data_prep", "pretrain", "evaluation", "slurm", "demo")
_PACKAGES = ("hvc", "torch", "deepspeed", "mlflow", "numpy", "pillow", "webdataset", "boto3", "safetensors")


@functools.cache
def code_sha256() -> str:
    """sha256 (hex) over names and contents of the package's own Python files."""
    digest = hashlib.sha256()
    for path in sorted(path for room in _ROOMS for path in (ROOT / room).rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def code_facts() -> dict[str, str]:
    """`code.version`, `code.sha256`, and where git knew it `code.commit` and `code.dirty` (true, false)."""
    return {"code.version": _version("hvc"), "code.sha256": code_sha256(), **code_origin(ROOT)}


def package_facts() -> dict[str, str]:
    """`version.PACKAGE` of Python and of the packages that the result may depend on."""
    return {"version.python": platform.python_version()} | {
        f"version.{name}": _version(name) for name in _PACKAGES
    }


def hardware_facts() -> dict[str, str]:
    """`hardware.*` of this node: host, CPU, cores, memory and, by kind, its GPUs."""
    facts = {
        "hardware.host": socket.gethostname(),
        "hardware.cpu": _cpu_name(),
        "hardware.cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0),
        "hardware.memory_gb": f"{psutil.virtual_memory().total / 1e9:.0f}",
    }
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    facts["hardware.gpus_per_node"] = str(count)
    if count:
        names = [torch.cuda.get_device_name(number) for number in range(count)]
        kinds = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        facts |= {"hardware.gpu": kinds, "version.cuda": str(torch.version.cuda)}
    return facts


def all_facts() -> dict[str, str]:
    """Code, packages and this node's hardware."""
    return code_facts() | package_facts() | hardware_facts()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
