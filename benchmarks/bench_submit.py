"""What Slurm costs a training job: from `hvc submit` to its first step, over what the step needs without.

The cluster is the one of the tests: real daemons on this machine, with nothing else in the queue. Both
ways train the same recipe on the same data with two processes.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from form import Figure, report

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from running import HVC, clean_env, hvc_json, make_images, write_recipe  # noqa: E402
from services.install import SLURM_COMMANDS, missing_packages  # noqa: E402
from services.slurm import SlurmCluster  # noqa: E402

from hvc.pretrain.recipe import TrainConfig  # noqa: E402
from hvc.slurm.cluster import ClusterConfig  # noqa: E402
from hvc.slurm.snapshot import take  # noqa: E402

RUNS = 3
_PATIENCE_SECONDS = 300


def main() -> None:
    """Measure both ways in turn, a warm-up first."""
    packages = missing_packages(SLURM_COMMANDS)
    if packages:
        sys.exit(f"no Slurm: `python tests/services/install.py` brings {', '.join(packages)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cluster").mkdir()
        make_images(folder / "images", 16)
        hvc_json("shard", "folder", "images", "data", cwd=folder)
        cluster = SlurmCluster(folder / "cluster")
        try:
            report("submit", _figures(folder, cluster), packages=("torch", "submitit"))
        finally:
            cluster.close()


def _figures(folder: Path, cluster: SlurmCluster) -> list[Figure]:
    profile = folder / "profile.yaml"
    settings = {"name": "bench", "partition": "batch", "nodes": 2, "environment": {"OMP_NUM_THREADS": "1"}}
    profile.write_text(json.dumps(settings | {"time_minutes": 30, "folder": str(folder / "jobs")}))
    alone, queued, commands = [], [], []
    for number in range(RUNS + 1):
        alone.append(_first_step(folder, f"alone-{number}", lambda recipe: _train(folder, recipe)))

        def submit(recipe: Path) -> None:
            begin = time.time()
            words = ("submit", "train", str(recipe), "--cluster", str(profile))
            job_id = hvc_json(*words, cwd=folder, **cluster.env)["job_id"]
            commands.append(time.time() - begin)
            cluster.wait(job_id, "COMPLETED", timeout=_PATIENCE_SECONDS)

        queued.append(_first_step(folder, f"queued-{number}", submit))
    without, with_slurm = statistics.median(alone[1:]), statistics.median(queued[1:])
    note = f"medians of {RUNS}: {with_slurm:.1f} s to the first step, without Slurm {without:.1f} s"
    return [
        Figure("slurm.submit_overhead_seconds", with_slurm - without, "s", "hvc train", "< 10", note),
        Figure("slurm.submit_command_seconds", statistics.median(commands[1:]), "s"),
        Figure("slurm.snapshot_seconds", _snapshot(folder), "s", asked="< 1"),
    ]


def _train(folder: Path, recipe: Path) -> None:
    subprocess.run(
        [*HVC, "train", str(recipe), "--processes", "2"],
        cwd=folder,
        env=clean_env(),
        check=True,
        capture_output=True,
    )


def _first_step(folder: Path, name: str, train: Callable[[Path], None]) -> float:
    """Seconds from now to the record of a run's first step."""
    recipe = write_recipe(folder / f"{name}.yaml", str(folder / "data"), steps=1)
    begin = time.time()
    train(recipe)
    lines = map(json.loads, (folder / name / "journal.jsonl").read_text().splitlines())
    return next(line["time"] / 1000 - begin for line in lines if line["kind"] == "metrics")


def _snapshot(folder: Path) -> float:
    timings = []
    for number in range(RUNS):
        begin = time.perf_counter()
        take(folder / f"snapshot-{number}", TrainConfig(data="data"), ClusterConfig(name="bench"))
        timings.append(time.perf_counter() - begin)
    return statistics.median(timings)


if __name__ == "__main__":
    main()
