"""Runs killed or stopped at random moments and started again end as if nothing had happened.

Weights, optimiser, target, BatchNorm statistics and generators: bit for bit. MLflow: no gap, no double.
"""

import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from mutation import more_in_soak, quick_and_soak
from running import recorded_steps, start_hvc, write_recipe
from training_tensors import all_tensors, differing

from hvc.pretrain.checkpoints.checkpoint import newest

pytestmark = pytest.mark.slow

STEPS, RANKS = 12, 2
KINDS = ("a rank", "all", "stop")


def recipe_of(folder: Path, dataset: str, zero_stage: int) -> Path:
    return write_recipe(
        folder / "run.yaml",
        dataset,
        steps=STEPS,
        workers=1,
        log_every=2,
        engine={"zero_stage": zero_stage},
        checkpoint={"every": 3, "keep": 2},
        # A picture more or less decides nothing here; drawing them takes time from the trials.
        tracking={"uri": f"sqlite:///{folder}/mlflow.db", "upload_encoder": "none", "pictures": 0},
    )


def start(recipe: Path) -> "subprocess.Popen[bytes]":
    folder = recipe.parent
    return start_hvc("train", str(recipe), "--processes", str(RANKS), cwd=folder, log=folder / "log")


def ranks_of(launcher: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    try:
        children = psutil.Process(launcher.pid).children()
        return [child for child in children if child.environ().get("RANK")]
    except psutil.Error:
        return []


def disturb(launcher: "subprocess.Popen[bytes]", kind: str, rng: random.Random) -> int:
    """End a run the given way; returns its exit code."""
    if kind == "stop":
        launcher.send_signal(rng.choice([signal.SIGTERM, signal.SIGUSR2, signal.SIGINT]))
    elif kind == "all":
        for process in [*ranks_of(launcher), psutil.Process(launcher.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    else:
        ranks = ranks_of(launcher)
        if ranks:
            with suppress(psutil.NoSuchProcess):
                rng.choice(ranks).kill()
        else:
            launcher.kill()
    return launcher.wait(120)


def wait_for_a_moment(
    rng: random.Random, folder: Path, launcher: "subprocess.Popen[bytes]", seconds: float
) -> None:
    """Some time while the run starts, or else a little after it has recorded so many steps."""
    if rng.random() < 0.4:
        time.sleep(rng.uniform(0, 0.5 * seconds))
        return
    journal, wanted = folder / "run" / "journal.jsonl", rng.randint(1, STEPS // 2 - 1)
    deadline = time.monotonic() + 240
    while launcher.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_text().count('"kind":"metrics"') >= wanted:
            break
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))


def wait_until_left(folder: Path) -> None:
    """Processes of a killed run need a moment to go; the next start would wait for them, too."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        mine = [
            p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])
        ]
        if not mine:
            return
        time.sleep(0.1)


def history(folder: Path, name: str) -> list[int]:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=10)
    assert run.info.status == "FINISHED"
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


@pytest.fixture(scope="module", params=more_in_soak([1], [0]))
def unbroken(request, dataset, tmp_path_factory):
    """Tensors of a run that nobody disturbed, its ZeRO stage and how long it took."""
    folder = tmp_path_factory.mktemp("unbroken")
    begin = time.monotonic()
    recipe = recipe_of(folder, dataset, request.param)
    assert start(recipe).wait(240) == 0, (folder / "log").read_text()
    seconds = time.monotonic() - begin
    found = newest(folder / "run" / "checkpoints")
    assert found is not None
    assert found.step == STEPS
    assert history(folder, "train/loss") == list(range(2, STEPS + 1, 2))
    return all_tensors(found), request.param, seconds


@pytest.mark.timeout(7200)
@quick_and_soak(2, 25)
def test_killed_at_random_moments_and_started_again(unbroken, dataset, tmp_path, count):
    tensors, zero_stage, seconds = unbroken
    rng = random.Random(41 + zero_stage)
    seen: Counter[str] = Counter()
    for trial in range(count):
        folder = tmp_path / str(trial)
        folder.mkdir()
        recipe = recipe_of(folder, dataset, zero_stage)
        for kind in rng.sample(KINDS, k=1 + trial % 3):
            launcher = start(recipe)
            wait_for_a_moment(rng, folder, launcher, seconds)
            if launcher.poll() is not None:
                seen["finished before"] += 1
                break
            code = disturb(launcher, kind, rng)
            seen[kind] += 1
            assert code != 2, (folder / "log").read_text()
            wait_until_left(folder)
        done = start(recipe)
        assert done.wait(240) == 0, (folder / "log").read_text()
        found = newest(folder / "run" / "checkpoints")
        assert found is not None
        assert found.step == STEPS
        assert differing(tensors, all_tensors(found)) == [], f"trial {trial}"
        steps = recorded_steps(folder / "run")
        assert sorted(set(steps)) == steps, f"trial {trial}: {steps}"
        assert set(range(2, STEPS + 1, 2)) <= set(steps), f"trial {trial}: {steps}"
        assert history(folder, "train/loss") == steps, f"trial {trial}"
        assert not [
            path for path in (folder / "run" / "checkpoints").iterdir() if path.name.startswith(".")
        ]
    print(dict(seen))  # noqa: T201 (how often what happened, with -s)


def test_the_comparison_sees_a_changed_bit(unbroken):
    tensors, _, _ = unbroken
    name = next(name for name, value in tensors.items() if value.is_floating_point() and value.numel() > 8)
    other = tensors | {name: tensors[name].clone()}
    other[name].view(-1)[3] = torch.nextafter(other[name].view(-1)[3], torch.tensor(9.0))
    assert differing(tensors, other) == [name]
