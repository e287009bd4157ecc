"""One training step on the CPU: beside the official code, beside a plain loop, and what tracking adds.

All kinds of step take the same photographs, from the same weights and with the same threads, in turn; a
ratio is the median over the rounds. With one thread it is CPU time that counts, so that other load on
the machine does not. Ours is the trainer's whole step, bytes of pixels to moved weights;
the official code gets its views as floats, which its loader makes. Tracking is measured in real runs.

    python benchmarks/bench_step.py [--official DIR] [--rounds N]
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import official
import steps
import torch
from form import Figure, report

from hvc.base.stage import Provenance, never
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.tracking.tracker import Tracker
from hvc.pretrain.training.ranks import Ranks
from hvc.pretrain.training.trainer import Trainer

CPU = torch.device("cpu")
BATCH, SIZE = 8, 128
TRACKED_STEPS = 20


def main() -> None:
    """Measure all, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    official.add_argument(parser)
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each kind, in turn")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--size", type=int, default=SIZE, help="side of the views in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, steps.ranks_of(CPU) as ranks:
        dataset = steps.make_dataset(Path(folder))
        figures = measure(dataset, ranks, options)
        for every in (1, 10):
            figures.append(tracking(dataset, ranks, Path(folder) / f"run-{every}", every, options))
    if (options.batch, options.size) == (BATCH, SIZE):
        report("step", figures, packages=("torch", "deepspeed"))
    else:  # another size than the one that is kept
        for figure in figures:
            print(figure)


def measure(dataset: str, ranks: Ranks, options: argparse.Namespace) -> list[Figure]:
    """Ratios of steps, and images/s."""
    batch = steps.make_batch(options.batch, options.size)
    config = partial(steps.recipe, dataset, options.batch, options.size)
    ours = steps.make_trainer(config(engine={"device": "cpu"}), ranks, CPU)
    planes = steps.make_trainer(config(engine={"device": "cpu", "channels_last": False}), ranks, CPU)
    plain = steps.Plain(config(), CPU)
    tensors = steps.all_tensors(ours)
    plain.load(tensors)
    runs: steps.Runs = {
        "ours": lambda: steps.trainer_step(ours, batch),
        "planes": lambda: steps.trainer_step(planes, batch),
        "plain": lambda: plain.step(batch),
    }
    if options.official:
        theirs = official.Official(options.official, options.size, steps.TOTAL_STEPS, CPU)
        theirs.load(tensors)
        runs["official"] = partial(theirs.step, *steps.official_inputs(batch, CPU))
    else:
        print("no --official DIR: the comparison with the official code is left out")
    steps.refuse_unlike({name: run() for name, run in runs.items()})
    threads = torch.get_num_threads()
    seconds = steps.in_turn(runs, options.rounds)
    torch.set_num_threads(1)
    few = {name: run for name, run in runs.items() if name != "planes"}
    alone = steps.in_turn(few, 3, warm_up=1, clock=time.process_time)
    torch.set_num_threads(threads)
    return _figures(seconds, alone, options.batch, f"batch {options.batch}, {options.size} px", threads)


def _figures(
    seconds: dict[str, list[float]], alone: dict[str, list[float]], batch: int, what: str, threads: int
) -> list[Figure]:
    note = f"{what}, {threads} threads, median of {len(seconds['ours'])}"
    note_alone = f"{what}, CPU time of 1 thread, median of {len(alone['ours'])}"
    ours, plain = seconds["ours"], seconds["plain"]
    gain = steps.ratio(seconds["planes"], ours)
    overhead, overhead_alone = steps.ratio(ours, plain) - 1, steps.ratio(alone["ours"], alone["plain"]) - 1
    figures = [
        Figure("step.images_per_second", batch / statistics.median(ours), "images/s", note=note),
        Figure("engine.overhead", overhead, "", "a plain loop", "< 0.05", note),
        Figure("engine.overhead_one_thread", overhead_alone, "", "a plain loop", note=note_alone),
        Figure("step.channels_last_gain", gain, "x", "weights in planes", note=note),
    ]
    if "official" not in seconds:
        return figures
    faster, faster_alone = (steps.ratio(times["official"], times["ours"]) for times in (seconds, alone))
    return [
        *figures,
        Figure("step.vs_official_cpu", faster, "x", "official code", "> 1", note),
        Figure("step.vs_official_cpu_one_thread", faster_alone, "x", "official code", note=note_alone),
    ]


def tracking(dataset: str, ranks: Ranks, folder: Path, every: int, options: argparse.Namespace) -> Figure:
    """Share of a real run's steps that passes inside the tracker's calls, with MLflow in SQLite."""
    config = steps.recipe(
        dataset,
        options.batch,
        options.size,
        steps=TRACKED_STEPS,
        log_every=every,
        output=str(folder),
        tracking={"uri": f"sqlite:///{folder.parent}/mlflow-{every}.db"},
    )
    data = load_data(config)
    tracker = Tracker(config, data, Provenance())
    trainer = Trainer(config, data, ranks, CPU, tracker, Provenance())
    outcome = trainer.train(never)
    inside = tracker.seconds
    tracker.finish(outcome)
    recorded = [record for record in tracker.records() if "perf/step_seconds" in record]
    step = statistics.mean(record["perf/step_seconds"] for record in recorded)
    name = "tracking.overhead" if every == 1 else f"tracking.overhead_every_{every}"
    note = f"{TRACKED_STEPS} steps of {step:.2f} s, recorded every {every}; {inside * 1e3:.1f} ms inside"
    return Figure(name, inside / (step * TRACKED_STEPS), "", "the steps", "< 0.01", note)


if __name__ == "__main__":
    main()
