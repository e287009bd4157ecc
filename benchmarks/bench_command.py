"""How soon the command answers: `hvc --help` as a whole process."""

import statistics
import subprocess
import sys
import time

from form import Figure, report

RUNS = 7


def main() -> None:
    """Time `hvc --help` and, in turn, an interpreter that does nothing."""
    ours = [sys.executable, "-c", "import hvc; hvc.main()", "--help"]
    bare = [sys.executable, "-c", "pass"]
    timings: dict[str, list[float]] = {"help": [], "bare": []}
    for _ in range(RUNS):
        timings["help"].append(seconds(ours))
        timings["bare"].append(seconds(bare))
    helped, empty = (statistics.median(timings[key]) for key in ("help", "bare"))
    report(
        "command",
        [
            Figure("command.help_seconds", helped, "s", asked="< 0.5", note=f"median of {RUNS}"),
            Figure("command.help_vs_python", helped / empty, "x", "an empty interpreter"),
        ],
    )


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
