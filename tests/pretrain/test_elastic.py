"""Real processes: killed or stopped in mid-epoch, continued by others; the sequence of samples goes on."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import chain, pairwise
from pathlib import Path

import pytest
from rank_harness import consume
from running import clean_env, recorded_steps, write_recipe
from training_data import numbered, write_dataset

from hvc.pretrain.checkpoints.checkpoint import complete_steps
from hvc.pretrain.data.dataset import load_data, plan_run
from hvc.pretrain.data.order import RunOrder
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.journal import metric_records
from hvc.pretrain.training.processes import free_port

SAMPLES, BATCH = 210, 8  # 27 steps per epoch, the last of two samples: fewer than three ranks


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elastic") / "set"
    runs = [("a", 60), (None, 30), ("b", 120)]
    write_dataset(folder, [numbered(number, (34, 33)) for number in range(SAMPLES)], 40, runs)
    return str(folder)


def expected(config: TrainConfig, steps: int) -> list[list[int]]:
    """Global batches as one process plans them."""
    order = RunOrder(plan_run(config, load_data(config)))
    return [order.batch_of(step, 0, 1).samples.tolist() for step in range(steps)]


def read_logs(folder: Path, world_size: int) -> dict[int, list[int]]:
    """Step -> samples of the global batch, of the steps that all ranks have done."""
    ranks = []
    for rank in range(world_size):
        lines = (folder / f"{rank}.jsonl").read_text().splitlines(keepends=True)
        ranks.append(dict(json.loads(line) for line in lines if line.endswith("\n")))
    common = sorted(set.intersection(*(set(rank) for rank in ranks)))
    return {step: [sample for rank in ranks for sample in rank[step]] for step in common}


def run_ranks(
    config: TrainConfig, world_size: int, first: int, last: int, folder: Path, kill_at: int | None
):
    """Run ranks to their end, or kill them all once each has done so many steps."""
    folder.mkdir()
    # Loader processes come from a server that belongs to the process which first wanted it. This process
    # has threads, which are no company for a fork.
    context = multiprocessing.get_context("spawn" if config.workers else "forkserver")
    context.set_forkserver_preload(["rank_harness"])
    ranks = [
        context.Process(
            target=consume,
            args=(config, rank, world_size, first, last, folder / f"{rank}.jsonl"),
            # On a busy machine they would be through before the kill comes.
            kwargs={"hold_at": None if kill_at is None else kill_at + 5},
        )
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + 240
    while kill_at is not None and time.monotonic() < deadline:
        logs = [folder / f"{rank}.jsonl" for rank in range(world_size)]
        if all(log.exists() and log.read_text().count("\n") >= kill_at for log in logs):
            break
        time.sleep(0.01)
    for rank in ranks:
        if kill_at is not None:
            os.kill(rank.pid, signal.SIGKILL)
        rank.join(120)
        assert kill_at is not None or rank.exitcode == 0
    return read_logs(folder, world_size)


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        (0, {}),
        (0, {"remainder": "wrap"}),
        pytest.param(
            1, {"frames_per_video": 25, "views": {"size": 32, "frame_gap": 5}}, marks=pytest.mark.slow
        ),
        (0, {"shuffle": False, "remainder": "drop"}),
    ],
)
def test_killed_ranks_are_continued_by_another_number(address, tmp_path, workers, options):
    recipe = {"data": address, "batch_size": BATCH, "workers": workers, "views": {"size": 32}} | options
    config = TrainConfig.parse(recipe)
    whole = expected(config, 60)
    done: dict[int, list[int]] = {}
    first = 0
    for world_size, kill_at in ((2, 12), (3, None)) if workers else ((2, 12), (3, 23), (1, None)):
        last = 60
        part = run_ranks(config, world_size, first, last, tmp_path / str(world_size), kill_at)
        assert sorted(part)[0] == first
        done |= part
        first = max(part) + 1
    assert sorted(done) == list(range(60))
    assert [done[step] for step in range(60)] == whole
    if not options:
        epochs = [list(chain(*whole[start:end])) for start, end in pairwise([0, 27, 54])]
        assert [sorted(epoch) for epoch in epochs] == [list(range(SAMPLES))] * 2
        assert epochs[0] != epochs[1]


_RECORDED = """
import json, os, sys
import hvc
import hvc.pretrain.training.trainer as train
original = train.stream
def recorded(*arguments, **options):
    with open(os.environ["RECORD"] + "/" + os.environ["RANK"] + ".jsonl", "w") as file:
        for batch in original(*arguments, **options):
            samples = batch.plan.samples.tolist() if batch.plan.weight else []
            print(json.dumps([batch.plan.step, samples]), file=file, flush=True)
            yield batch
train.stream = recorded
hvc.main()
"""


def train(recipe: Path, world_size: int, record: Path) -> "list[subprocess.Popen[bytes]]":
    """Start the ranks of `hvc train` one by one, as torchrun does, each writing down its samples."""
    record.mkdir()
    common = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = []
    for rank in range(world_size):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "RECORD": str(record)}
        with (record / f"{rank}.log").open("wb") as log:
            command = [sys.executable, "-c", _RECORDED, "train", str(recipe)]
            ranks.append(subprocess.Popen(command, env=clean_env() | common | own, stdout=log, stderr=log))
    return ranks


@pytest.mark.slow
def test_a_run_stopped_on_two_ranks_goes_on_with_three(address, tmp_path):
    values = {"steps": 40, "batch_size": BATCH, "workers": 1, "checkpoint": {"every": 100, "keep": 9}}
    recipe = write_recipe(tmp_path / "moved.yaml", address, **values)
    ranks = train(recipe, 2, tmp_path / "two")
    log = tmp_path / "two" / "0.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and log.read_text().count("\n") >= 5) and time.monotonic() < deadline:
        assert ranks[0].poll() is None, (tmp_path / "two" / "0.log").read_text()
        time.sleep(0.02)
    ranks[1].send_signal(signal.SIGTERM)
    assert [rank.wait(120) for rank in ranks] == [75, 75], (tmp_path / "two" / "0.log").read_text()
    (stopped_at,) = complete_steps(tmp_path / "moved" / "checkpoints")
    before = read_logs(tmp_path / "two", 2)
    ranks = train(recipe, 3, tmp_path / "three")
    assert [rank.wait(240) for rank in ranks] == [0] * 3, (tmp_path / "three" / "0.log").read_text()
    after = read_logs(tmp_path / "three", 3)
    assert (max(before) + 1, min(after)) == (stopped_at, stopped_at)
    assert 0 < stopped_at < 27, "not stopped in mid-epoch"
    joined = before | after
    assert [joined[step] for step in range(40)] == expected(TrainConfig.load(recipe), 40)
    assert recorded_steps(tmp_path / "moved") == list(range(1, 41))
    last = metric_records(tmp_path / "moved" / "journal.jsonl")[-1]
    assert last["train/bad_samples"] == 0
    assert 0 <= last["perf/wait_share"] <= 1
