"""Label propagation per frame: tiles that skip what the radius forbids, against the dense form.

Random unit features of ResNet-18's width; the reference compares every query with every key of every
frame and masks afterwards, as the official code does. Same features, same threads, in turn.
"""

import statistics
import time

import torch
from form import Figure, report
from torch import Tensor
from torch.nn import functional as F

from hvc.evaluation.propagation import Frame, propagate_masks

CHANNELS, OBJECTS, CONTEXT = 256, 3, 20
HEIGHT, WIDTH = 30, 54  # half of 480p at stride 8
RADIUS, TOP_K, TEMPERATURE = 12.0, 15, 0.1
RUNS = 3


def main() -> None:
    """Time both forms in turn and compare what they give."""
    generator = torch.Generator().manual_seed(0)
    query, *features = (
        F.normalize(torch.randn(HEIGHT, WIDTH, CHANNELS, generator=generator), dim=-1)
        for _ in range(CONTEXT + 2)
    )
    masks = [torch.rand(HEIGHT, WIDTH, OBJECTS, generator=generator) for _ in features]
    frames = [Frame(f, m) for f, m in zip(features, masks, strict=True)]
    options = {"radius": RADIUS, "top_k": TOP_K, "temperature": TEMPERATURE}
    context = [(frame, 1) for frame in frames[1:]]
    times: dict[str, list[float]] = {"tiles": [], "dense": []}
    for _ in range(RUNS):
        start = time.perf_counter()
        ours = propagate_masks(query, frames[0], context, **options)
        times["tiles"].append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs = dense(query, frames)
        times["dense"].append(time.perf_counter() - start)
    tiles, whole = (statistics.median(times[key]) for key in ("tiles", "dense"))
    note = f"{HEIGHT}x{WIDTH} map, context {CONTEXT}, {torch.get_num_threads()} threads, median of {RUNS}"
    report(
        "propagation",
        [
            Figure("propagation.seconds_per_frame", tiles, "s", note=note),
            Figure("propagation.vs_dense", whole / tiles, "x", "dense form, same features and threads"),
            Figure("propagation.max_difference", (ours - theirs).abs().max().item(), "", asked="< 1e-5"),
        ],
    )


def dense(query: Tensor, frames: list[Frame]) -> Tensor:
    """All pairs, then the mask, then the joint top k."""
    keys = torch.stack([frame.features for frame in frames]).flatten(0, 2)
    labels = torch.stack([frame.masks for frame in frames]).flatten(0, 2)
    affinity = query.flatten(0, 1) @ keys.T
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    places = torch.stack([rows, columns], -1).flatten(0, 1).double()
    far = torch.cdist(places, places) >= RADIUS
    view = affinity.view(len(places), len(frames), len(places))
    view[:, 1:].masked_fill_(far[:, None], -1e10)
    best, index = affinity.topk(TOP_K)
    weights = (best / TEMPERATURE).softmax(1)
    return torch.einsum("qk,qkm->qm", weights, labels[index]).view(HEIGHT, WIDTH, -1)


if __name__ == "__main__":
    main()
