"""bf16 autocast beside fp32: errors at the same weights, and two runs of 200 steps side by side.

Both runs see the same photographs in the same order from the same weights. On a CPU without units for
bf16 the network is narrow and the views are small; on a GPU it is the real network at 256 px.

    python benchmarks/bench_precision.py [--steps N] [--picture FILE]
"""

import argparse
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import steps
import torch
from form import Figure, report
from torch import Tensor, nn

from hvc.pretrain.data.normalise import Normaliser
from hvc.pretrain.drawing.charts import BLUE, ORANGE, dress, new_figure, to_image
from hvc.pretrain.model.ema import EmaTarget
from hvc.pretrain.model.network import OnlineNetwork, StepLoss, TargetNetwork
from hvc.pretrain.model.pairs import Pairs, find_pairs
from hvc.pretrain.model.trunk import TrunkModule

BATCHES, TAIL = 8, 20


class NarrowTrunk(TrunkModule):
    """Stride 8 in three convolutions, for CPUs."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width, layers = width, []
        for number in range(3):
            layers += [
                nn.Conv2d(width if number else 3, width, 3, 2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, width, H/8, W/8]."""
        return self.layers(images)  # type: ignore[no-any-return]


def narrow() -> TrunkModule:
    """The factory that `architecture` names."""
    return NarrowTrunk()


class Inputs(NamedTuple):
    """A batch on the device."""

    views: list[Tensor]
    pairs: Pairs


class Curve(NamedTuple):
    """What a run says of every step."""

    static: list[float]
    dynamic: list[float]
    moved: list[float]
    """Share of the target's weights that the EMA moved."""
    distance: list[float]
    """Between target and online weights, relative to the online ones' length."""


class Model:
    """Networks, EMA and Adam in one precision."""

    def __init__(self, architecture: str, device: torch.device, total: int, *, half: bool) -> None:
        torch.manual_seed(0)
        precision: Callable[[], Any] = (
            partial(torch.autocast, device.type, torch.bfloat16) if half else nullcontext
        )
        self.online = OnlineNetwork(architecture, precision=precision).to(device).train()
        self.ema = EmaTarget(TargetNetwork(self.online).to(device), total)
        self._optimiser = torch.optim.Adam(self.online.parameters(), lr=1e-3, fused=True)

    def nudge(self) -> None:
        """Move all weights by a millionth: what becomes of that is chance."""
        with torch.no_grad():
            for parameter in self.online.parameters():
                parameter.mul_(1 + 1e-6 * torch.randn_like(parameter))

    def loss(self, inputs: Inputs) -> StepLoss:
        """Of one forward pass."""
        keys = [self.ema.network(view) for view in inputs.views]
        found: StepLoss = self.online(inputs.views, inputs.pairs, keys)
        return found

    def step(self, inputs: Inputs) -> tuple[StepLoss, float, float]:
        """One step: its loss, the share of the target that moved, its distance to the online network."""
        before = _flat(self.ema.network)
        self.ema.update(self.online.ema_source())
        after = _flat(self.ema.network)
        online = torch.cat([p.detach().flatten() for p in self.online.ema_source()])
        off = after != online
        moved = ((before != after) & off).sum() / off.sum().clamp(min=1)
        distance = torch.linalg.vector_norm(after - online) / torch.linalg.vector_norm(online)
        loss = self.loss(inputs)
        self._optimiser.zero_grad()
        loss.total.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return loss, float(moved), float(distance)


def main() -> None:
    """Measure both, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--picture", type=Path, help="draw the curves into this file (PNG)")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    real = device.type == "cuda"
    architecture = "resnet18" if real else "bench_precision:narrow"
    count, size = (64, 256) if real else (8, 48)
    inputs = [make_inputs(count, size, seed, device) for seed in range(BATCHES)]
    exact, half = (Model(architecture, device, options.steps, half=flag) for flag in (False, True))
    figures = errors(exact, half, inputs[0])
    nudged = Model(architecture, device, options.steps, half=False)
    nudged.nudge()
    *curves, other = [follow(model, inputs, options.steps) for model in (exact, half, nudged)]
    assert all(p.dtype is torch.float32 for p in half.ema.network.parameters())
    what = f"{architecture.rpartition(':')[2]}, batch {count}, {size} px, {device.type}"
    figures += compare(*curves, what)
    gap = compare(curves[0], other, what)[0]
    figures.append(replace(gap, name="precision.curve_gap_of_chance", note="fp32 from weights off by 1e-6"))
    if options.picture:
        draw(*curves, what).save(options.picture)
    report("precision", figures)


def make_inputs(count: int, size: int, seed: int, device: torch.device) -> Inputs:
    """Views of photographs and their pairs."""
    batch = steps.make_batch(count, size, seed)
    normalise = Normaliser("imagenet", device)
    first, second = batch.boxes
    pairs = find_pairs((first, second), size // 8, size // 8)
    return Inputs([normalise(view) for view in batch.views], pairs.to(device))


def errors(exact: Model, half: Model, inputs: Inputs) -> list[Figure]:
    """Of loss and gradients at the same weights, by part of the network."""
    losses = [model.loss(inputs).total for model in (exact, half)]
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]
    first, second = (float(loss.detach()) for loss in losses)
    error = abs(first - second) / abs(first)
    figures = [Figure("precision.loss_error", error, "", "fp32", note="relative, at the first weights")]
    parts: dict[str, float] = {}
    for (name, module), other in zip(exact.online.named_children(), half.online.children(), strict=True):
        own, its = (_gradient(part) for part in (module, other))
        parts[name] = float(torch.linalg.vector_norm(own - its) / torch.linalg.vector_norm(own))
    whole = [_gradient(model.online) for model in (exact, half)]
    error = float(torch.linalg.vector_norm(whole[0] - whole[1]) / torch.linalg.vector_norm(whole[0]))
    by_part = ", ".join(f"{name} {value:.2g}" for name, value in parts.items())
    return [*figures, Figure("precision.gradient_error", error, "", "fp32", note=f"relative; {by_part}")]


def follow(model: Model, inputs: list[Inputs], total: int) -> Curve:
    """Train for so many steps."""
    curve = Curve([], [], [], [])
    for number in range(total):
        loss, moved, distance = model.step(inputs[number % len(inputs)])
        values = (float(loss.static), float(loss.dynamic), moved, distance)
        for line, value in zip(curve, values, strict=True):
            line.append(value)
    return curve


def compare(exact: Curve, half: Curve, what: str) -> list[Figure]:
    """The ends of both runs, and how their targets moved."""
    note = f"{what}, {len(exact.static)} steps, mean of the last {TAIL}"
    (static, dynamic), (half_static, half_dynamic) = (
        (statistics.mean(curve.static[-TAIL:]), statistics.mean(curve.dynamic[-TAIL:]))
        for curve in (exact, half)
    )
    gap = max(abs(static - half_static), abs(dynamic - half_dynamic))
    note += f"; static {static:.3f} and {half_static:.3f}, dynamic {dynamic:.3f} and {half_dynamic:.3f}"
    moved, moved_exact = min(half.moved[1:]), min(exact.moved[1:])
    apart = statistics.mean(half.distance[-TAIL:]) / statistics.mean(exact.distance[-TAIL:])
    share = f"least share of its weights that a step moved: {moved_exact:.3f} and {moved:.3f}"
    return [
        Figure("precision.curve_gap", gap, "", "fp32", note=note),
        Figure("precision.target_moved", moved / moved_exact, "x", "fp32", note=share),
        Figure(
            "precision.target_distance", apart, "x", "fp32", note="target to online weights; 1: as close"
        ),
    ]


def draw(exact: Curve, half: Curve, what: str) -> Any:
    """Both runs side by side: terms, and the target's distance."""
    figure = new_figure(10, 3)
    titles = {"static": "static agreement", "dynamic": "dynamic agreement", "distance": "target to online"}
    for axis, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for curve, label, colour in ((exact, "fp32", BLUE), (half, "bf16", ORANGE)):
            axis.plot(_smooth(getattr(curve, name)), color=colour, label=label, linewidth=1)
        dress(axis, title)
    figure.axes[0].legend(fontsize=7.5, frameon=False)
    figure.text(0.01, 0.01, what, fontsize=7)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    return to_image(figure)


def _smooth(values: list[float]) -> list[float]:
    """Means over as many steps as there are batches."""
    return [statistics.mean(values[max(0, at - BATCHES + 1) : at + 1]) for at in range(len(values))]


def _gradient(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def _flat(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


if __name__ == "__main__":
    main()
