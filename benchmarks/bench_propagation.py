"""Label propagation at full size: a frame of 480 x 854 with 50 context frames, and a long video's memory.

Features are ResNet-18's of a drifting picture with noise, computed before and timed apart. The dense form
is the official code's way on a CPU: every query against all 51 x 6420 keys in chunks of 100 queries,
-1e10 outside the disc, division by the temperature, top k, softmax. Same features and threads; it is
slow, so it runs once, whole.

Memory is the peak of a fresh process that tracks a video through the real propagator, PyTorch and the
compiled kernel included.

    python benchmarks/bench_propagation.py [--frames N]
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from form import Figure, report
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hvc.evaluation.propagation.features import Encoder
from hvc.evaluation.propagation.memory import Memory
from hvc.evaluation.propagation.propagate import propagate_masks
from hvc.evaluation.propagation.propagator import Propagator, upsample
from hvc.evaluation.propagation.protocol import Protocol

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from dense_propagation import dense, tied

HEIGHT, WIDTH = 480, 854
IDS = 4
PROTOCOL = Protocol()
RUNS = 5


def main() -> None:
    """Measure all, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=80, help="length of the video whose memory counts")
    parser.add_argument("--track", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.track:
        track(options.frames)
        return
    figures = against_dense() + memory(options.frames)
    report("propagation", figures, packages=("torch", "numba"))


@torch.inference_mode()
def against_dense() -> list[Figure]:
    """Seconds of both forms, and how far their masks are apart."""
    encoder, extracting = Encoder.untrained(0), []
    maps = []
    for t in range(PROTOCOL.context + 2):
        start = time.perf_counter()
        maps.append(encoder.features(picture(t)))
        extracting.append(time.perf_counter() - start)
    frames = Memory.like(len(maps), maps[0], IDS, torch.float32)
    for t, features in enumerate(maps):
        frames.features[t] = features.permute(1, 2, 0)
        frames.masks[t] = F.adaptive_avg_pool2d(objects(t).float(), maps[0].shape[1:]).permute(1, 2, 0)
    query, reference = frames[len(maps) - 1].features, frames[0]
    context = Memory(frames.features[1:-1], frames.masks[1:-1])
    newest_first = dict.fromkeys(reversed(range(PROTOCOL.context)), 1)
    del maps
    times, busy = [], []
    for _ in range(1 + RUNS):  # the first compiles
        start, used = time.perf_counter(), time.process_time()
        ours = propagate_masks(query, [reference], context, [newest_first], PROTOCOL)[0]
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - used)
    listed = [(context[t], 1) for t in newest_first]
    start, used = time.perf_counter(), time.process_time()
    theirs = dense(query, reference, listed, PROTOCOL)
    whole, whole_busy = time.perf_counter() - start, time.process_time() - used
    frame, frame_busy = statistics.median(times[1:]), statistics.median(busy[1:])
    clear = ~tied(query, reference, listed, PROTOCOL)
    apart = (ours - theirs).abs()[clear].max().item()
    labels = [upsample(masks, (HEIGHT, WIDTH))[0] for masks in (ours, theirs)]
    same = (labels[0] == labels[1]).double().mean().item()
    note = f"map 60 x 107 x 256, context {PROTOCOL.context}, {torch.get_num_threads()} threads"
    against = "official dense form, same features and threads"
    cpu = f"{whole:.1f} s, once; CPU time: {whole_busy:.1f} and {frame_busy:.2f} s"
    ties = f"{(~clear).sum()} of {clear.numel()} queries, whose k best rounding decides, left out"
    features = statistics.median(extracting)
    return [
        Figure("propagation.seconds_per_frame", frame, "s", note=f"{note}, median of {RUNS}"),
        Figure("propagation.vs_official_cpu", whole / frame, "x", against, "> 40", cpu),
        Figure("propagation.max_difference", apart, "", against, "< 1e-5", ties),
        Figure("propagation.same_labels", same, "", against, "> 0.9999", "pixels, ties included"),
        Figure("propagation.features_seconds", features, "s", note="ResNet-18, a frame"),
    ]


def memory(frames: int) -> list[Figure]:
    """Peak and speed of a process that tracks a video."""
    command = [sys.executable, __file__, "--track", "--frames", str(frames)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    peak, seconds = float(said[0]), float(said[1])
    note = f"{frames} frames of {HEIGHT} x {WIDTH}, ResNet-18, context {PROTOCOL.context}"
    return [
        Figure("propagation.peak_gb", peak / 1e9, "GB", asked="< 1.5", note=f"{note}; the whole process"),
        Figure("propagation.tracked_seconds", seconds, "s", note="a frame with its features, full context"),
    ]


@torch.inference_mode()
def track(frames: int) -> None:
    """Follow objects through a video; print the peak in bytes and the seconds of a late frame."""
    encoder, propagator = Encoder.untrained(0), Propagator(PROTOCOL, IDS)
    seconds = []
    for t in range(frames):
        image = picture(t)
        start = time.perf_counter()
        soft = propagator.step(encoder.features(image), objects(0) if t == 0 else None)
        upsample(soft, (HEIGHT, WIDTH))
        seconds.append(time.perf_counter() - start)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(int(peak[1]) * 1024, statistics.median(seconds[PROTOCOL.context :] or seconds))


def objects(t: int) -> Tensor:
    """Bool [IDS, 480, 854]: the ground and three bars that drift with it."""
    masks = torch.zeros(IDS, HEIGHT, WIDTH, dtype=torch.bool)
    for number in range(1, IDS):
        masks[number, 60 - t : 400 - t, 200 * number - 100 - t : 200 * number - t] = True
    masks[0] = ~masks[1:].any(0)
    return masks


def picture(t: int) -> NDArray[np.uint8]:
    """Uint8 [480, 854, 3]: blobs of colour that drift by a pixel a frame, and noise of its own."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + t
    waves = [np.sin(rows / a + channel) * np.cos(columns / b) for channel, (a, b) in enumerate(WAVES)]
    noise = np.random.default_rng(t).normal(0, 12, (HEIGHT, WIDTH, 3))
    return (128 + 80 * np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8)


WAVES = (17.0, 23.0), (31.0, 13.0), (11.0, 41.0)
"""Wavelengths down and across, in pixels / 2 pi, of each colour."""


if __name__ == "__main__":
    main()
