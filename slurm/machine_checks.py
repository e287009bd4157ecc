"""What this machine has: devices, memory, disk. Nothing heavy is imported here."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hvc.slurm.checks import Check

_GIB = 1 << 30
_LITTLE_MEMORY, _LITTLE_SHARED_MEMORY = 4 * _GIB, 1 * _GIB
_LITTLE_DISK, _NO_DISK = 20 * _GIB, 1 * _GIB
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, nothing is written there
_ASK_TORCH = """
import json, torch
count = torch.cuda.device_count()
names = [torch.cuda.get_device_name(i) for i in range(count)]
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "names": names}))
"""


def check_devices(seconds: float) -> Iterator[Check]:
    """GPUs as torch sees them, asked in a process of its own that ends after `seconds`."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        advice = (
            "Try again (a second start is quicker); if it stays slow, move the environment to a local disk."
        )
        yield Check("devices", "warn", f"torch did not start within {seconds:.0f} s", advice)
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Check(
            "devices", "fail", f"torch does not start: {last}", "Install torch again: `make setup`."
        )
        return
    answer = json.loads(done.stdout.splitlines()[-1])
    cores = f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
    if answer["names"]:
        yield Check("devices", "ok", f"{', '.join(answer['names'])} (CUDA {answer['cuda']}), {cores}")
    elif shutil.which("nvidia-smi") is None:
        yield Check("devices", "ok", f"CPU only, {cores}")
    elif answer["cuda"] is None:
        advice = "Install a CUDA build of torch to use the GPU (see pytorch.org)."
        yield Check("devices", "warn", f"CPU only, {cores}: torch {answer['torch']} has no CUDA", advice)
    else:
        advice = (
            "Run `nvidia-smi`; the driver may be too old for this torch, or no GPU is given to this job."
        )
        yield Check(
            "devices", "warn", f"CPU only, {cores}: torch (CUDA {answer['cuda']}) sees no GPU", advice
        )


def check_memory() -> Iterator[Check]:
    """Free memory, and the shared memory that loader processes hand batches over in."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free"
    if memory.available < _LITTLE_MEMORY:
        yield Check("memory", "warn", found, "Close other programs, or lower batch_size and workers.")
    else:
        yield Check("memory", "ok", found)
    if not _SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(_SHARED_MEMORY).free
    found = f"{free / _GIB:.1f} GiB free in {_SHARED_MEMORY}"
    if free < _LITTLE_SHARED_MEMORY:
        advice = "Start the container with more (docker run --shm-size=8g), or set workers=0."
        yield Check("shared memory", "warn", found, advice)
    else:
        yield Check("shared memory", "ok", found)


def check_disk(output: Path) -> Iterator[Check]:
    """Whether the output folder (or the nearest one above it) takes a file, and how much fits."""
    folder = nearest_folder(output)
    problem = unwritable(folder)
    if problem:
        advice = "Choose another output folder, or make this one writable."
        yield Check("disk", "fail", f"cannot write to {folder}: {problem}", advice)
        return
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB free at {folder}, writable"
    advice = "Free some space, or choose an output folder on a larger disk: checkpoints are kept there."
    if free < _NO_DISK:
        yield Check("disk", "fail", found, advice)
    elif free < _LITTLE_DISK:
        yield Check("disk", "warn", found, advice)
    else:
        yield Check("disk", "ok", found)


def nearest_folder(path: Path) -> Path:
    """The path itself, or the first thing above it that exists."""
    path = path.absolute()  # os.access: what lies in a closed folder counts as absent, and raises nothing
    return next((each for each in (path, *path.parents) if os.access(each, os.F_OK)), path)


def unwritable(folder: Path) -> str | None:
    """Why no file can be made in the folder; None when one was made (and removed)."""
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=".hvc-doctor-") as file:
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return None
