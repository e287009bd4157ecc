"""`hvc jobs` with a thousand submissions: real folders and journals, 200 of them in a real queue.

Folders are made as submission and training leave them: records of attempts, journals of 50 to 5,000
metric records. 200 are in the queue of the test cluster, as jobs submitted from scripts in these folders.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from form import Figure, report

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from services.slurm import SlurmCluster  # noqa: E402

from hvc.pretrain.tracking.journal import JOURNAL, Journal  # noqa: E402
from hvc.pretrain.tracking.run_note import RunNote  # noqa: E402
from hvc.slurm.attempts import Attempt, Records  # noqa: E402
from hvc.slurm.submission import Submission, this_user  # noqa: E402

IN_QUEUE = 200
_SCRIPT = "#!/bin/sh\n#SBATCH --job-name=hvc-train\n#SBATCH --output=/dev/null\nexec sleep 600\n"


def main() -> None:
    """Make the folders, and time whole commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hvc-bench-jobs-") as name:
        folder = Path(name)
        cluster = SlurmCluster(folder / "cluster")
        try:
            env = {**os.environ, **cluster.env, "XDG_STATE_HOME": str(folder / "state")}
            make(folder, asked.submissions, cluster)
            index = folder / "state" / "hvc" / "job-folders"
            index.parent.mkdir(parents=True)
            index.write_text(f"{folder / 'jobs'}\n")
            figures = measure(env, asked.submissions, asked.runs)
        finally:
            cluster.close()
    report("jobs", figures)


def make(folder: Path, count: int, cluster: SlurmCluster) -> None:
    """Submissions with their runs; the last `IN_QUEUE` of them in the queue."""
    for number in range(count):
        output, place = folder / "outputs" / f"run-{number:04d}", folder / "jobs" / f"train-{number:04d}"
        steps = 50 * 10 ** (number % 3)
        make_run(output, number, steps)
        place.mkdir(parents=True)
        waits = number >= count - IN_QUEUE
        job_id = submit(place, cluster) if waits else str(1_000_000 + number)
        Submission(
            job_id=job_id,
            stage="train",
            name=f"run-{number:04d}",
            submitted=time.time() - 60 * (count - number),
            cluster="bench",
            sbatch="job.sh",
            command="hvc submit train",
            user=this_user(),
            workdir=str(folder),
            output=str(output),
        ).write(place)
        about = {"job_id": job_id, "job_file": "job.json", "nodes": "node1", "started": time.time()}
        ended = {} if waits else {"ended": time.time(), "outcome": "done"}
        Records(place, None).write(Attempt(attempt=1, **about, **ended))
        for rank in range(8):
            log = place / "logs" / "attempt-1" / f"rank-{rank}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("a line\n")


def make_run(output: Path, number: int, records: int) -> None:
    """The journal of a run with so many metric records, ten steps apart."""
    journal = Journal(output / JOURNAL)
    journal.append("journal", version=1, run_key=f"{number:032x}", adopted=False)
    tags = {"hvc.total_steps": "100000"} | {f"hvc.tag{n}": "x" * 40 for n in range(40)}
    params = {f"section.key{n}": "value" for n in range(80)}
    attempt = {
        "number": 1,
        "name": f"run-{number:04d}",
        "experiment": "hvc",
        "tags": tags,
        "params": params,
    }
    journal.append("attempt", **attempt, recipe="x" * 3000, inputs=[], code="c")
    line = {f"system/figure{n}": n / 7 for n in range(20)}
    line |= {"train/loss": -0.5, "perf/images_per_second": 1234.5, "perf/step_seconds": 0.1}
    for record in range(records):
        journal.append("metrics", step=10 * (record + 1), values=line)
    journal.close()
    RunNote("http://mlflow:5000", "hvc", f"{number:032x}", f"{number:032x}").write(output)


def submit(place: Path, cluster: SlurmCluster) -> str:
    """A real job that was submitted from this folder."""
    script = place / "job.sh"
    script.write_text(_SCRIPT)
    return cluster.run("sbatch", "--parsable", "--mem=1", str(script)).strip()


def measure(env: dict[str, str], count: int, runs: int) -> list[Figure]:
    """Wall time of `hvc jobs --all --json`, and of the same as a table."""
    command = [sys.executable, "-c", "import hvc; hvc.main()", "jobs", "--all"]
    seconds, busy, told = [], [], ""
    for _ in range(runs):
        start, before = time.perf_counter(), cpu_seconds()
        told = run([*command, "--json"], env)
        seconds.append(time.perf_counter() - start)
        busy.append(cpu_seconds() - before)
    found = json.loads(told)
    states = [row["state"] for one in found["submissions"] for row in one["jobs"]]
    assert len(states) == count, f"{len(states)} of {count} submissions listed"
    assert found["problem"] == ""
    assert states.count("done") == count - min(IN_QUEUE, count)
    alive = sum(state in ("running", "waiting") for state in states)
    assert alive == min(IN_QUEUE, count), f"{alive} alive"
    assert all(row["progress"]["step"] for one in found["submissions"] for row in one["jobs"])
    start = time.perf_counter()
    table = run(command, env)
    drawn = time.perf_counter() - start
    assert len(re.findall(r"run-\d{4}", table)) >= count
    note = f"whole command, median of {runs}; {alive} in Slurm's queue, journals of 50 to 5,000 records"
    return [
        Figure(f"slurm.jobs_{count}_seconds", statistics.median(seconds), "s", asked="< 3", note=note),
        Figure(f"slurm.jobs_{count}_cpu_seconds", statistics.median(busy), "s", note="of that, computing"),
        Figure(f"slurm.jobs_{count}_table_seconds", drawn, "s", note="the same as a table, once"),
    ]


def cpu_seconds() -> float:
    """Of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: list[str], env: dict[str, str]) -> str:
    """A command's output."""
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


if __name__ == "__main__":
    main()
