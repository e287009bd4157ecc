"""The command as a user runs it, and images to run it on."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hvc.pretrain.tracking.mlflow_client import connect

HVC = [sys.executable, "-c", "import hvc; hvc.main()"]


def run_hvc(
    *arguments: str, cwd: Path, timeout: float = 240, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `hvc ARGUMENTS` to its end."""
    return subprocess.run(
        [*HVC, *arguments],
        cwd=cwd,
        env=clean_env() | env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start_hvc(*arguments: str, cwd: Path, log: Path, **env: str) -> "subprocess.Popen[bytes]":
    """Start `hvc ARGUMENTS` and return at once; its words go to a file."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [*HVC, *arguments], cwd=cwd, env=clean_env() | env, stdout=file, stderr=subprocess.STDOUT
        )


def hvc_json(*arguments: str, cwd: Path, **env: str) -> dict[str, Any]:
    """Run a sub-command that must end well and return its `--json` result."""
    done = run_hvc(*arguments, "--json", cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def recorded_steps(folder: Path) -> list[int]:
    """Steps that a run's journal has metrics of, in its order."""
    lines = (folder / "journal.jsonl").read_text().splitlines()
    contents = [json.loads(line) for line in lines]
    return [content["step"] for content in contents if content["kind"] == "metrics"]


def clean_env() -> dict[str, str]:
    """This process's environment without what would steer a run from outside."""
    steering = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "MLFLOW_TRACKING_URI"}
    # One thread: tests share few cores, and sums come out in the same order everywhere.
    return {k: v for k, v in os.environ.items() if k not in steering} | {"OMP_NUM_THREADS": "1"}


def make_images(folder: Path, count: int, seed: int = 0) -> Path:
    """Smooth random pictures, JPEG, of several sizes."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        width, height = (int(x) for x in rng.integers(48, 120, 2))
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(
            folder / f"{number:04d}.jpg", quality=92
        )
    return folder


@cache
def _new_database() -> Path:
    """MLflow's database before anything is in it: to make one takes longer than the runs of most tests."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    connect(f"sqlite:///{folder}/mlflow.db")
    return Path(folder) / "mlflow.db"


def write_recipe(path: Path, data: str, **values: Any) -> Path:
    """A recipe that trains in seconds; JSON is YAML."""
    database = path.parent / "mlflow.db"
    if not database.exists():
        shutil.copy(_new_database(), database)
    recipe: dict[str, Any] = {
        "name": path.stem,
        "data": data,
        "output": str(path.parent / path.stem),
        "batch_size": 8,
        "steps": 6,
        "workers": 0,
        "log_every": 1,
        "views": {"size": 32},
        "checkpoint": {"every": 2, "keep": 10},
        # Pictures at the end alone: those of every step would take as long as the steps.
        "tracking": {"uri": f"sqlite:///{database}", "upload_encoder": False, "pictures": 0},
    }
    path.write_text(json.dumps(recipe | values))
    return path
