"""The form that all benchmarks keep: a table for people, `benchmarks/results/NAME.json` for the rest."""

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured figure."""

    name: str
    value: float
    unit: str
    reference: str = ""
    """What it is compared with, measured in the same run."""
    asked: str = ""
    """The bound it should keep, e.g. `< 0.5`; empty: informative."""
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the bound is kept; None without one."""
        if not self.asked:
            return None
        sign, _, bound = self.asked.partition(" ")
        compare = {"<": self.value < float(bound), ">": self.value > float(bound)}
        return compare[sign]


def report(name: str, figures: Iterable[Figure], packages: Iterable[str] = ("torch",)) -> None:
    """Print the table and write the results file; both hold every figure, kept or not.

    Figures that were measured before and not this time stay in the file, each with its date.
    """
    figures = list(figures)
    context: dict[str, Any] = {
        "machine": _machine(),
        "versions": {package: version(package) for package in ("hvc", *packages)}
        | {"python": platform.python_version()},
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    RESULTS.mkdir(exist_ok=True)
    rows = [asdict(figure) | {"holds": figure.holds} | context for figure in figures]
    path, names = RESULTS / f"{name}.json", {figure.name for figure in figures}
    before = json.loads(path.read_text()) if path.exists() else []
    rows += [row for row in before if row["name"] not in names]
    path.write_text(json.dumps(rows, indent=1) + "\n")
    table = Table("figure", "value", "asked", "holds", "compared with", "note", box=None)
    for figure in figures:
        holds = {None: "", True: "yes", False: "NO"}[figure.holds]
        value = f"{figure.value:.4g} {figure.unit}"
        table.add_row(figure.name, value, figure.asked, holds, figure.reference, figure.note)
    Console(width=140 if not sys.stdout.isatty() else None).print(table)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {_gpu()}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
