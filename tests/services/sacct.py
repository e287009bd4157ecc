"""`sacct` for a cluster without an accounting database.

Answers what submitit asks (`sacct -o JobID,State,NodeList --parsable2 -j ID ...`) from what
slurmctld remembers; finished jobs stay there for `MinJobAge` seconds. An unknown field is empty.
"""

import argparse
import re
import subprocess
import sys


def main() -> None:
    """Print one header and one line per job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--format", default="JobID,State,NodeList")
    parser.add_argument("-j", "--jobs", action="append", default=[])
    parser.add_argument("-P", "--parsable2", action="store_true")
    arguments, _ = parser.parse_known_args()
    fields = arguments.format.split(",")
    lines = ["|".join(fields)]
    for job in [job for group in arguments.jobs for job in group.split(",")]:
        lines += ["|".join(row.get(field, "") for field in fields) for row in rows(job)]
    sys.stdout.write("\n".join(lines) + "\n")


def rows(job: str) -> list[dict[str, str]]:
    """The job, or every task of an array, in sacct's words."""
    shown = subprocess.run(
        ["scontrol", "-o", "show", "job", job], capture_output=True, text=True, check=False
    )
    known = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in shown.stdout.splitlines()]
    return [_row(job) for job in known if "JobId" in job]


def _row(job: dict[str, str]) -> dict[str, str]:
    name = job["JobId"]
    if "ArrayJobId" in job:
        task = job.get("ArrayTaskId", "")
        name = f"{job['ArrayJobId']}_{task if task.isdigit() else f'[{task}]'}"
    nodes = job.get("NodeList", "")
    return {
        "JobID": name,
        "State": job["JobState"],
        "NodeList": "None assigned" if nodes in ("", "(null)") else nodes,
        "ExitCode": job.get("ExitCode", ""),
        "JobName": job.get("JobName", ""),
        "Partition": job.get("Partition", ""),
    }


if __name__ == "__main__":
    main()
