"""The way through the house only goes up, and light commands stay light."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from running import HVC, run_hvc

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ["base", "data_prep", "pretrain", "evaluation", "slurm"]


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("hvc.")}
        assert not {name.split(".")[0] for name in names} & set(FLOORS), f"{path}: import hvc.<room>"
    return rooms


def imported_packages(source: str) -> set[str]:
    """First parts of all names that are imported, wherever in the file."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_imports_only_from_below(room):
    allowed = set(FLOORS[: FLOORS.index(room) + 1])
    for path in (ROOT / room).rglob("*.py"):
        assert imported_rooms(path) <= allowed, path


@pytest.mark.parametrize("room", ["pretrain", "evaluation"])
def test_the_parts_of_a_room_import_each_other_in_one_direction(room):
    """A part is a folder of the room; what lies beside the folders may import any of them."""
    parts = sorted(path.parent.name for path in (ROOT / room).glob("*/__init__.py"))
    assert len(parts) > 5
    below = {part: imported_parts(ROOT / room / part, room) & set(parts) - {part} for part in parts}
    TopologicalSorter(below).prepare()  # raises CycleError, which names the parts


def imported_parts(folder: Path, room: str) -> set[str]:
    parts = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"hvc.{room}."):
                parts.add(node.module.split(".")[2])
    return parts


def test_the_ground_floor_asks_nothing_of_torch():
    for room in ("base", "data_prep"):
        for path in (ROOT / room).rglob("*.py"):
            assert "torch" not in imported_packages(path.read_text()), path


@pytest.mark.parametrize("line", ["import torch", "from torch import nn", "import os, torch.nn as nn"])
def test_no_form_of_import_is_overlooked(line):
    assert "torch" in imported_packages(f"def late():\n    {line}\n")
    assert "torch" not in imported_packages(f"text = {line!r}  # {line}")


def modules_after(arguments: list[str]) -> set[str]:
    code = (
        "import sys, hvc\n"
        f"sys.argv = ['hvc', *{arguments!r}]\n"
        "try:\n    hvc.main()\n"
        "except SystemExit:\n    sys.stderr.write(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stderr.split())


def test_help_imports_nothing_heavy():
    loaded = modules_after(["--help"])
    assert "typer" in loaded
    assert not loaded & {"torch", "mlflow", "deepspeed", "numpy", "boto3", "pydantic", "yaml", "submitit"}


def test_a_dry_run_needs_no_torch_no_cluster_and_no_data():
    cluster = str(ROOT / "configs" / "clusters" / "gpu.yaml")
    recipe = str(ROOT / "configs" / "imagenet.yaml")
    loaded = modules_after(["submit", "train", recipe, "--cluster", cluster, "--dry-run"])
    assert not loaded & {"torch", "mlflow", "deepspeed"}


def test_a_dry_run_of_a_pipeline_is_as_light():
    cluster = str(ROOT / "configs" / "clusters" / "cpu.yaml")
    pipeline = str(ROOT / "configs" / "pipeline.yaml")
    loaded = modules_after(["submit", "pipeline", pipeline, "--cluster", cluster, "--dry-run"])
    assert "hvc.slurm.pipeline_submit" in loaded
    assert not loaded & {"torch", "mlflow", "deepspeed"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "shard", "folder", "photos", "s3://bucket/set"],
        ["submit", "evaluate", "runs:/0123", "davis2016", "DAVIS"],
    ],
)
def test_dry_runs_print_the_script(arguments, tmp_path):
    cluster = str(ROOT / "configs" / "clusters" / "cpu.yaml")
    done = run_hvc(*arguments, "--cluster", cluster, "--dry-run", cwd=tmp_path, PATH="/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash")
    assert "#SBATCH --requeue" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_every_command_explains_itself():
    commands = [
        "shard",
        "verify",
        "train",
        "runs",
        "leaderboard",
        "evaluate",
        "score",
        "check-results",
        "demo",
        "doctor",
    ]
    for command in [[name] for name in commands] + [
        ["submit", n] for n in ("shard", "train", "evaluate", "pipeline", "sweep")
    ]:
        done = subprocess.run([*HVC, *command, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--json" in done.stdout, command


def test_wrong_use_exits_2(tmp_path):
    for arguments in (["shard", "folder"], ["shard", "nonsense", "a", "b"], ["fly"], ["train"]):
        assert run_hvc(*arguments, cwd=tmp_path).returncode == 2, arguments
