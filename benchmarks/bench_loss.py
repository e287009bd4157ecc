"""The loss from embeddings and motion vectors to their gradients: at the positive pairs, against all pairs.

Batch 16, 256 channels, maps of 32 x 32, crops as the official code draws them on images of 640 x 480. One
direction, in turn, so that each form finds the caches as the other left them; medians. The dense form is
that of the tests: every product of two positions, under the mask. The pairs and the mask are known before;
a figure of its own counts them in. The dynamic head, which every form needs, is outside the clock. One
thread, so that others on the machine matter less (OMP_NUM_THREADS=2: both forms gain about as much).

Memory is the most that torch's allocator held at one time, inputs and their gradients aside: on a CPU from
the profiler's list of allocations with their addresses, so that it does not depend on what the process had
free before; on a GPU from the allocator's own peak.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from form import Figure, report
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import profile

from hvc.pretrain.model.heads import DynamicHead
from hvc.pretrain.model.loss import PairTerms, hybrid_loss, pair_terms
from hvc.pretrain.model.pairs import find_pairs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from allocations import temporary_peak
from crop_boxes import official_boxes
from dense_loss import dense_pair_terms, positive_mask

BATCH, CHANNELS, SIDE = 16, 256, 32
RUNS, WARM_UP = 11, 2
LAYOUTS = {"": torch.contiguous_format, "channels_last.": torch.channels_last}
PARTS = {
    "gather": ("aten::index_select", "aten::gather"),
    "scatter": ("aten::index_add_", "aten::scatter_add_"),
    "zeros": ("aten::zero_", "aten::fill_"),
}
Run = Callable[[], list[Tensor]]
"""Gives the tensors that do not count as temporary."""


def main() -> None:
    """Measure both memory formats, then what belongs to neither form."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figures = [figure for name in LAYOUTS for figure in measure(device, name)]
    report("loss", figures + around(device))


def measure(device: torch.device, name: str) -> list[Figure]:
    """Time, memory and difference of both forms in one memory format."""
    inputs = maps(device, LAYOUTS[name])
    boxes = official_boxes(BATCH)
    pairs, mask = find_pairs(boxes, SIDE, SIDE).to(device), positive_mask(*boxes, SIDE, SIDE).to(device)

    def ours() -> list[Tensor]:
        return gradients(inputs, pair_terms(inputs[0], inputs[1], pairs, *inputs[2:]))

    def dense() -> list[Tensor]:
        return gradients(inputs, dense_pair_terms(inputs[0], inputs[1], mask, *inputs[2:]))

    def forward() -> list[Tensor]:
        return [hybrid_loss(pair_terms(inputs[0], inputs[1], pairs, *inputs[2:]))]

    def find_ours() -> list[Tensor]:
        return [find_pairs(boxes, SIDE, SIDE).to(device).index]

    def find_dense() -> list[Tensor]:
        return [positive_mask(boxes[0].to(device), boxes[1].to(device), SIDE, SIDE)]

    whole, sparse, half, found, masked = times(device, [dense, ours, forward, find_ours, find_dense])
    memory = [peak(device, run) for run in (ours, dense)]
    apart = [(a - b).abs().max().item() for a, b in zip(ours(), dense(), strict=True)]
    against = "all pairs, same inputs and threads"
    note = f"{pairs.index.shape[1]} pairs, {where(device)}, median of {RUNS}"
    return [
        Figure(f"loss.{name}speedup", whole / sparse, "x", against, "> 20", note),
        Figure(f"loss.{name}memory_share", memory[0] / memory[1], "", against, "< 0.05"),
        Figure(f"loss.{name}value_difference", apart[0], "", against, "< 1e-6"),
        Figure(f"loss.{name}gradient_difference", max(apart[1:]), "", against, "< 1e-5"),
        Figure(f"loss.{name}ms", sparse * 1e3, "ms", note=f"all pairs: {whole * 1e3:.1f} ms"),
        Figure(f"loss.{name}peak_mb", memory[0] / 1e6, "MB", note=f"all pairs: {memory[1] / 1e6:.0f} MB"),
        Figure(f"loss.{name}forward_share", half / sparse, "", "all of it"),
        *(
            Figure(f"loss.{name}{part}_share", share, "", "all of it")
            for part, share in parts(device, ours)
        ),
        Figure(
            f"loss.{name}speedup_with_finding",
            (whole + masked) / (sparse + found),
            "x",
            "all pairs and their mask",
            note=f"finding: {found * 1e3:.2f} ms, the mask: {masked * 1e3:.0f} ms",
        ),
    ]


def around(device: torch.device) -> list[Figure]:
    """The dynamic head, and finding pairs at the official batch size."""
    head = DynamicHead().to(device)
    query, key, *_ = maps(device, torch.contiguous_format)

    def run_head() -> list[Tensor]:
        vectors = head(query, key), head(key, query)
        return list(
            torch.autograd.grad(sum(v.square().sum() for v in vectors), [query, *head.parameters()])
        )

    boxes = official_boxes(128)
    seconds, found = times(device, [run_head, lambda: [find_pairs(boxes, SIDE, SIDE).index]])
    note = "both orders, forward and backward; in no other figure"
    return [
        Figure("loss.head_ms", seconds * 1e3, "ms", note=note),
        Figure("loss.find_pairs_ms", found * 1e3, "ms", note="128 samples, on the host"),
    ]


def maps(device: torch.device, layout: torch.memory_format) -> list[Tensor]:
    """Query, key, forward and backward vectors; all but the key ask for gradients."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for channels in (CHANNELS, CHANNELS, 2, 2):
        values = torch.randn(BATCH, channels, SIDE, SIDE, generator=generator)
        values = F.normalize(values, dim=1) if channels == CHANNELS else values
        made.append(values.to(device).contiguous(memory_format=layout).requires_grad_())
    made[1] = made[1].detach()
    return made


def gradients(inputs: list[Tensor], terms: PairTerms) -> list[Tensor]:
    """The loss, and its gradients."""
    loss = hybrid_loss(terms)
    return [loss.detach(), *torch.autograd.grad(loss, [x for x in inputs if x.requires_grad])]


def times(device: torch.device, runs: list[Run]) -> list[float]:
    """Median seconds of each, measured in turn."""
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(WARM_UP + RUNS):
        for run, seconds in zip(runs, taken, strict=True):
            start = clock(device)
            run()
            seconds.append(clock(device) - start)
    return [statistics.median(seconds[WARM_UP:]) for seconds in taken]


def parts(device: torch.device, run: Run) -> list[tuple[str, float]]:
    """Shares of the operators' own time: reading the maps, adding to them, their zeros, arithmetic."""
    with profile() as seen:
        for _ in range(RUNS):
            run()
    seconds = dict.fromkeys((*PARTS, "arithmetic"), 0.0)
    for event in seen.key_averages():
        part = next((part for part, names in PARTS.items() if event.key in names), "arithmetic")
        on_device = device.type == "cuda"
        seconds[part] += event.self_device_time_total if on_device else event.self_cpu_time_total
    return [(part, value / sum(seconds.values())) for part, value in seconds.items()]


def peak(device: torch.device, run: Run) -> int:
    """Bytes; on a GPU gradients are taken off the peak whether they are there by then or not."""
    if device.type == "cpu":
        return temporary_peak(run)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    results = sum(result.numel() * result.element_size() for result in run())
    return torch.cuda.max_memory_allocated() - before - results


def clock(device: torch.device) -> float:
    """Seconds, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def where(device: torch.device) -> str:
    """What it ran on, in a word or two."""
    return "GPU" if device.type == "cuda" else f"threads: {torch.get_num_threads()}"


if __name__ == "__main__":
    main()
