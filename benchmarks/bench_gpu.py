"""The training step on a GPU: ours in every setting beside the official code, memory, and a real run.

The data lies on the device. Ours is the trainer's whole step, views cut already. The official code runs
as shipped (fp32, TF32 in convolutions as PyTorch 1.12 had it, deterministic cuDNN without a search), and
with the fp16 autocast that its image script leaves off. What a GPU will need of memory is estimated
beside it, without one. A setting that fails is named, and the others go on.

    python benchmarks/bench_gpu.py [--official DIR] [--data DATASET --minutes N] [--tiny]

`--tiny`: the same at 32 px on whatever there is, to prove the script; prints, but keeps no results.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import official
import saved
import steps
import torch
from form import Figure, report

from hvc.base.errors import EXIT_DONE, EXIT_STOPPED, HvcError
from hvc.pretrain.data.batch import Batch
from hvc.pretrain.model.cost import cost_of
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.journal import JOURNAL, metric_records
from hvc.pretrain.training.peak import peak_tflops
from hvc.pretrain.training.ranks import Ranks

_OWN_PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
BATCH, SIZE, STEPS, WARM_UP = 128, 256, 20, 5
SETTINGS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "bf16_planes": {"precision": "bf16", "channels_last": False},
    "bf16_recompute": {"precision": "bf16", "recompute": True},
    "fp16": {"precision": "fp16"},
    "fp32_compile": {"compile": True},
    "bf16_compile": {"precision": "bf16", "compile": True},
}
"""Options of the engine by name."""


class Run(NamedTuple):
    """What one setting gave."""

    images: float
    """Images/s."""
    gb: float
    """Peak memory by PyTorch's count, in GB (10^9 bytes)."""
    syncs: int
    """Times that a step made the host wait for the device."""


class Bench:
    """Sizes and device, and how one kind of step is measured there."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.tiny = options, options.tiny
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size, self.size = (4, 32) if self.tiny else (BATCH, SIZE)
        self.steps, self.warm_up = (2, 1) if self.tiny else (STEPS, WARM_UP)
        self.before = 0
        """Bytes that lay on the device before this setting began; the data alone, if all was freed."""
        self.batch: Batch = steps.on_device(steps.make_batch(self.batch_size, self.size), self.device)

    def measure(self, step: Callable[[], Any]) -> Run:
        """Time steps that follow each other without a pause."""
        for _ in range(self.warm_up):
            step()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begin = self._clock()
        for _ in range(self.steps):
            step()
        seconds = self._clock() - begin
        gb = (torch.cuda.max_memory_allocated() - self.before) / 1e9 if self.device.type == "cuda" else 0.0
        return Run(self.batch_size * self.steps / seconds, gb, self._syncs(step))

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _syncs(self, step: Callable[[], Any]) -> int:
        if self.device.type != "cuda":
            return 0
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            step()
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(warning.message) for warning in told)


def main() -> None:
    """Measure all that can be measured here."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    official.add_argument(parser)
    parser.add_argument("--data", help="sharded dataset for a real run (folder or s3:// address)")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the real run")
    parser.add_argument("--workers", type=int, default=8, help="loader processes of the real run")
    parser.add_argument("--only", choices=SETTINGS, action="append", help="measure these settings alone")
    parser.add_argument("--tiny", action="store_true", help="prove the script in small")
    options = parser.parse_args()
    if not (options.tiny or torch.cuda.is_available()):
        parser.error("no GPU is visible here; --tiny proves the script on the CPU")
    bench = Bench(options)
    figures = saved.figures(SIZE, BATCH)
    with tempfile.TemporaryDirectory() as folder, steps.ranks_of(bench.device) as ranks:
        dataset = steps.make_dataset(Path(folder))
        figures += compare(bench, dataset, ranks)
    if options.data:
        figures += real_run(bench, options)
    if options.tiny or options.only:
        for figure in figures:
            print(figure)
    else:
        report("gpu", figures, packages=("torch", "deepspeed"))


def compare(bench: Bench, dataset: str, ranks: Ranks) -> list[Figure]:
    """Ours in all settings, the official code in two."""
    ours = {}
    for name in bench.options.only or SETTINGS:
        ours[name] = _attempt(name, bench, lambda name=name: _ours(bench, dataset, ranks, name))
    theirs = {}
    if bench.options.official:
        for name, amp in (("official", False), ("official_amp", True)):
            theirs[name] = _attempt(name, bench, lambda amp=amp: _theirs(bench, amp))
    else:
        print("no --official DIR: the comparison with the official code is left out")
    return _figures(bench, _done(ours), _done(theirs))


def _ours(bench: Bench, dataset: str, ranks: Ranks, name: str) -> Run:
    config = steps.recipe(dataset, bench.batch_size, bench.size, engine=SETTINGS[name])
    trainer = steps.make_trainer(config, ranks, bench.device)
    if bench.options.official and name == "fp32":
        theirs = official.Official(bench.options.official, bench.size, steps.TOTAL_STEPS, bench.device)
        theirs.load(steps.all_tensors(trainer))
        inputs = steps.official_inputs(bench.batch, bench.device)
        # TF32 rounds both, each in its own order.
        limit = 1e-4 if bench.device.type == "cpu" else 2e-2
        losses = {"ours": steps.trainer_step(trainer, bench.batch), "official": theirs.step(*inputs)}
        steps.refuse_unlike(losses, limit)
        del theirs, inputs, losses
        _free(bench)
    return bench.measure(lambda: steps.trainer_step(trainer, bench.batch))


def _theirs(bench: Bench, amp: bool) -> Run:
    checkout = bench.options.official
    with official.as_shipped():
        model = official.Official(checkout, bench.size, steps.TOTAL_STEPS, bench.device, amp=amp)
        views, boxes = steps.official_inputs(bench.batch, bench.device)
        return bench.measure(lambda: model.step(views, boxes))


def _attempt(name: str, bench: Bench, work: Callable[[], Run]) -> Run | None:
    """A run, or None where it failed (told on the terminal): the others still say something."""
    print(f"{name} ...", flush=True)
    bench.before = torch.cuda.memory_allocated() if bench.device.type == "cuda" else 0
    try:
        run = work()
        print(f"  {run.images:.1f} images/s, {run.gb:.2f} GB, {run.syncs} synchronisations", flush=True)
        return run
    except Exception:  # noqa: BLE001 - out of memory, no compiler, no half precision: anything
        traceback.print_exc(limit=-4)
        return None
    finally:
        _free(bench)


def _free(bench: Bench) -> None:
    gc.collect()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()


def _done(runs: dict[str, Run | None]) -> dict[str, Run]:
    return {name: run for name, run in runs.items() if run is not None}


def _figures(bench: Bench, ours: dict[str, Run], theirs: dict[str, Run]) -> list[Figure]:
    note = f"batch {bench.batch_size}, {bench.size} px"
    cost = cost_of("resnet18", bench.size)
    assert cost is not None
    work = cost.flops_per_image_step / 1e12
    figures = []
    for name, run in {**ours, **theirs}.items():
        kind = "fp16" if name in ("fp16", "official_amp") else "bf16" if "bf16" in name else "fp32"
        peak = peak_tflops(_device_name(bench), kind)  # type: ignore[arg-type]
        mfu = f", MFU {run.images * work / peak:.1%}" if peak else ""
        words = f"{note}; {run.images * work:.1f} TFLOP/s{mfu}"
        figures.append(Figure(f"gpu.{name}.images_per_second", run.images, "images/s", note=words))
        figures.append(Figure(f"gpu.{name}.peak_gb", run.gb, "GB", note=note))
    if ours:
        best = max(ours, key=lambda name: ours[name].images)
        syncs = max(run.syncs for run in ours.values())
        figures.append(Figure("gpu.synchronisations", syncs, "per step", asked="< 1", note="most of ours"))
        for rival, asked in (("official", "> 4"), ("official_amp", "")):
            if rival in theirs:
                value = ours[best].images / theirs[rival].images
                name = f"gpu.images_vs_{rival}"
                figures.append(Figure(name, value, "x", rival, asked, f"{note}; ours: {best}"))
    for name, setting, bound in (("peak_gb", "bf16", 10), ("peak_gb_recompute", "bf16_recompute", 6)):
        if setting in ours:
            figures.append(Figure(f"gpu.{name}", ours[setting].gb, "GB", asked=f"< {bound}", note=note))
    return figures


def _device_name(bench: Bench) -> str:
    return torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "CPU"


def real_run(bench: Bench, options: argparse.Namespace) -> list[Figure]:
    """`hvc train` on a real dataset for some minutes: speed and waiting, the first records left out."""
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "data": options.data,
            "output": f"{folder}/run",
            "batch_size": bench.batch_size,
            "views": {"size": bench.size},
            "epochs": 10_000,
            "workers": 0 if bench.tiny else options.workers,
            "log_every": 1 if bench.tiny else 10,
            "engine": {"precision": "fp32" if bench.tiny else "bf16"},
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        }
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(TrainConfig.parse(config).to_yaml())
        _train(recipe, options.minutes)
        records = metric_records(Path(folder) / "run" / JOURNAL)
    speeds = [record for record in records if "perf/images_per_second" in record]
    speeds = speeds[len(speeds) // 4 :]  # loaders fill up, cuDNN searches
    note = f"batch {bench.batch_size}, {bench.size} px, {options.minutes:g} minutes, {len(speeds)} records"
    wanted = {
        "perf/images_per_second": ("gpu.train.images_per_second", "images/s"),
        "perf/wait_share": ("gpu.train.wait_share", ""),
        "perf/mfu": ("gpu.train.mfu", ""),
        "system/memory/gpu_gb": ("gpu.train.peak_gb", "GB"),
    }
    return [
        Figure(figure, statistics.median(record[name] for record in speeds), unit, note=note)
        for name, (figure, unit) in wanted.items()
        if speeds and all(name in record for record in speeds)
    ]


def _train(recipe: Path, minutes: float) -> None:
    """The command in a process of its own, asked to stop when its time is over."""
    environment = {name: value for name, value in os.environ.items() if name not in _OWN_PLACE}
    command = [sys.executable, "-c", "import hvc; hvc.main()", "train", str(recipe)]
    child = subprocess.Popen(command, env=environment)
    try:
        child.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        child.terminate()
    code = child.wait()
    if code not in (EXIT_DONE, EXIT_STOPPED):
        raise HvcError(f"the real run ended with exit code {code}; its own words are above")


if __name__ == "__main__":
    main()
