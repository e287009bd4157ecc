"""Label propagation on a GPU: frames/s at 854 x 480 with 50 context frames, and what bounds them.

`step` is propagation alone, on ResNet-18's feature maps that lie on the device; `video` adds the trunk
(fp32) and the way back to labels on the host, without decoding. Parts are shares of the kernels' own time
in one call: gathering keys, products, top k, the rest. Beside each part stands what it would take at the
device's own bandwidth or peak, so that the share says what bounds it.

    python benchmarks/bench_propagation_gpu.py [--tiny]

`--tiny`: the same in small on whatever there is, to prove the script; prints, but keeps no results.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from form import Figure, report
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hvc.evaluation.propagation.context import half_widths, plan_tiles
from hvc.evaluation.propagation.features import Encoder
from hvc.evaluation.propagation.memory import Memory
from hvc.evaluation.propagation.propagator import Propagator, upsample
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.propagation.tiles import SIDE, propagate_tiles
from hvc.pretrain.training.peak import peak_tflops

IDS, TIMED, WARM_UP, PICTURES = 4, 50, 5, 8
PARTS = {
    "products": ("aten::bmm", "aten::mm"),
    "top_k": ("aten::topk", "aten::sort"),
    "gather": ("aten::index", "aten::gather"),
}
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class Bench:
    """Sizes and device, and the maps that all measurements take."""

    def __init__(self, tiny: bool) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.size = (96, 160) if tiny else (480, 854)
        self.context, self.timed = (3, 2) if tiny else (50, TIMED)
        self.encoder = Encoder.untrained(0, device=self.device)
        generator = np.random.default_rng(0)
        scene = generator.integers(0, 256, (*self.size, 3)).astype(np.float32)
        noise = generator.normal(0, 25, (PICTURES, *self.size, 3))
        self.pictures = (scene + noise).clip(0, 255).astype(np.uint8)
        self.maps = [self.encoder.features(picture) for picture in self.pictures]

    def clock(self) -> float:
        """Seconds, after the device has finished what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def protocol(self, precision: str) -> Protocol:
        """The official one in this precision."""
        return Protocol.model_validate({"context": self.context, "precision": precision})

    def note(self) -> str:
        """What was tracked."""
        height, width = self.maps[0].shape[1:]
        return f"map {height} x {width} x 256, context {self.context}, {IDS} ids"


@torch.inference_mode()
def main() -> None:
    """Measure both precisions."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="prove the script in small")
    options = parser.parse_args()
    if not (options.tiny or torch.cuda.is_available()):
        parser.error("no GPU is visible here; --tiny proves the script on the CPU")
    bench = Bench(options.tiny)
    figures = [figure for precision in DTYPES for figure in measure(bench, precision)]
    figures += differences(bench)
    if options.tiny:
        for figure in figures:
            print(figure)
    else:
        report("propagation_gpu", figures)


def measure(bench: Bench, precision: str) -> list[Figure]:
    """Speed, memory and parts of one precision."""
    name = f"propagation_gpu.{precision}"
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = frames_per_second(bench, precision, lambda t: bench.maps[t % PICTURES], labels=False)
    video = frames_per_second(
        bench, precision, lambda t: bench.encoder.features(bench.pictures[t % PICTURES]), labels=True
    )
    gb = torch.cuda.max_memory_allocated() / 1e9 if bench.device.type == "cuda" else 0.0
    asked = "> 30" if precision == "float16" else ""
    return [
        Figure(f"{name}.step_fps", step, "frames/s", note=bench.note()),
        Figure(
            f"{name}.video_fps", video, "frames/s", asked=asked, note=f"{bench.note()}; trunk and labels"
        ),
        Figure(f"{name}.peak_gb", gb, "GB", note="allocated by torch"),
        *parts(bench, precision),
    ]


def frames_per_second(
    bench: Bench, precision: str, features: Callable[[int], Tensor], *, labels: bool
) -> float:
    """Of frames whose context is full."""
    propagator = Propagator(bench.protocol(precision), IDS)
    given = torch.zeros(IDS, *bench.size, dtype=torch.bool)
    for number in range(IDS):
        given[number, :, number * bench.size[1] // IDS : (number + 1) * bench.size[1] // IDS] = True
    before = bench.context + WARM_UP
    start = 0.0
    for t in range(before + bench.timed):
        if t == before:
            start = bench.clock()
        soft = propagator.step(features(t), given.to(bench.device) if t == 0 else None)
        if labels:
            upsample(soft, bench.size)[0].cpu()
    return bench.timed / (bench.clock() - start)


def call(bench: Bench, dtype: torch.dtype) -> Callable[[], Tensor]:
    """One call of the tiles with a full context."""
    frames = Memory.like(bench.context, bench.maps[0], IDS, dtype)
    for slot in range(bench.context):
        frames.features[slot] = bench.maps[slot % PICTURES].permute(1, 2, 0)
    generator = torch.Generator().manual_seed(0)
    frames.masks.copy_((4 * torch.randn(frames.masks.shape, generator=generator)).softmax(-1))
    query = bench.maps[-1].permute(1, 2, 0).contiguous().to(dtype)
    counts = [dict.fromkeys(range(bench.context), 1)]
    return lambda: propagate_tiles(query, [frames[0]], frames, counts, bench.protocol("float32"))[0]


def parts(bench: Bench, precision: str) -> list[Figure]:
    """Shares of the operators' own time, each with its bound."""
    run = call(bench, DTYPES[precision])
    run()
    activities = [ProfilerActivity.CPU]
    on_device = bench.device.type == "cuda"
    if on_device:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as seen:
        run()
    seconds = dict.fromkeys((*PARTS, "rest"), 0.0)
    for event in seen.key_averages():
        part = next((part for part, names in PARTS.items() if event.key in names), "rest")
        taken: Any = event.self_device_time_total if on_device else event.self_cpu_time_total
        # On a GPU kernels are listed beside the operators that started them.
        if event.key.startswith("aten::") or not on_device:
            seconds[part] += taken / 1e6
    bounds, total = bounds_of(bench, precision), sum(seconds.values())
    return [
        Figure(
            f"propagation_gpu.{precision}.{part}_share",
            value / total,
            "",
            f"{total * 1e3:.2f} ms in all",
            note=f"{value * 1e3:.2f} ms; {bounds.get(part, 'masks, discs and vote')}",
        )
        for part, value in seconds.items()
    ]


def bounds_of(bench: Bench, precision: str) -> dict[str, str]:
    """What each part has to do, and how long that takes at the device's peak."""
    channels, height, width = bench.maps[0].shape
    tiles = plan_tiles(height, width, half_widths(Protocol().radius, height, width), SIDE)
    cells = torch.zeros(height, width)
    queries = cells[tiles[0].rows, tiles[0].columns].numel()
    keys = cells[tiles[0].key_rows, tiles[0].key_columns].numel()
    size = DTYPES[precision].itemsize
    every_key = len(tiles) * bench.context * keys
    pairs = queries * (every_key + len(tiles) * height * width)
    tflop = 2 * channels * pairs / 1e12
    peak = None  # of float32 without TF32, which products do not use by default, none is known
    if bench.device.type == "cuda" and precision == "float16":
        peak = peak_tflops(torch.cuda.get_device_name(), "fp16")
    ideal = f", {tflop / peak * 1e3:.2f} ms at {peak:.0f} TFLOP/s" if peak else ""
    return {
        "products": f"{tflop:.3f} TFLOP{ideal}",
        "top_k": f"reads {pairs * size / 1e9:.2f} GB of affinities, each pass anew",
        "gather": f"moves {2 * every_key * channels * size / 1e9:.2f} GB",
    }


def differences(bench: Bench) -> list[Figure]:
    """How far half precision moves the masks, and the labels."""
    whole, half = (call(bench, dtype)() for dtype in DTYPES.values())
    apart = (whole - half).abs()
    same = (whole.argmax(-1) == half.argmax(-1)).double().mean().item()
    against = "float32, same features"
    return [
        Figure("propagation_gpu.float16.mean_difference", apart.mean().item(), "", against),
        Figure("propagation_gpu.float16.same_labels", same, "", against, note="cells; masks are random"),
    ]


if __name__ == "__main__":
    main()
