"""What a model costs: parameters by part, and floating-point operations per image of a step.

Counted by running the modules' own code on shapes alone (PyTorch's meta device): nothing is computed. The
modules are made on the CPU, as a trunk of the user's own may look at its numbers while it is made.
A multiplication and an addition are two operations. Convolutions and matrix products count; the rest
(norms, activations, EMA, optimiser, products of the few positive pairs) is some per mille and does not.
"""

import logging
from functools import cache
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hvc.pretrain.model.architecture import Architecture
from hvc.pretrain.model.network import OnlineNetwork, TargetNetwork

_log = logging.getLogger(__name__)


class Cost(NamedTuple):
    """Of one image: two views of it in a step."""

    parameters: int
    """Trained ones."""
    target_parameters: int
    """Those of the EMA target, which follow and are not trained."""
    flops_per_image_forward: int
    """All forward passes of a step: online and target on both views, dynamic head four times."""
    flops_per_image_step: int
    """Forward and backward. Activations that are computed anew (`engine.recompute`) are not in it."""
    flops_per_view_trunk: int
    """One view through the trunk."""
    parts: dict[str, int]
    """Trained parameters of trunk, projector, predictor and dynamic head."""


@cache
def cost_of(architecture: Architecture, view_size: int) -> Cost | None:
    """The cost of training with this trunk on square views of `view_size` pixels.

    None, and once a warning, where the trunk cannot be run on shapes alone. UsageError as by `build_trunk`.
    """
    with torch.random.fork_rng(devices=[]):
        online = OnlineNetwork(architecture)
        target = TargetNetwork(online)
    try:
        return _count(online.to("meta"), target.to("meta"), view_size)
    except Exception as error:  # noqa: BLE001 (the user's own code; training does not depend on it)
        _log.warning(
            "architecture %s: its operations cannot be counted, so there will be no perf/tflops_per_device "
            "and no perf/mfu; it does not run on PyTorch's meta device (%s: %s)",
            architecture,
            type(error).__name__,
            str(error).partition("\n")[0],
        )
        return None


def _count(online: OnlineNetwork, target: TargetNetwork, view_size: int) -> Cost:
    with torch.device("meta"):
        views = [torch.empty(1, 3, view_size, view_size) for _ in range(2)]
        with FlopCounterMode(display=False) as trunk, torch.no_grad():
            online.online_encoder(views[0])
        with FlopCounterMode(display=False) as forward:
            loss = _forward(online, target, views)
        with FlopCounterMode(display=False) as backward:
            torch.autograd.backward(loss)
    parts = {
        "trunk": _trained(online.online_encoder),
        "projector": _trained(online.online_space_projector),
        "predictor": _trained(online.space_predictor),
        "dynamic head": _trained(online.flow),
    }
    passes = forward.get_total_flops()
    return Cost(
        parameters=_trained(online),
        target_parameters=sum(parameter.numel() for parameter in target.parameters()),
        flops_per_image_forward=passes,
        flops_per_image_step=passes + backward.get_total_flops(),
        flops_per_view_trunk=trunk.get_total_flops(),
        parts=parts,
    )


def _forward(online: OnlineNetwork, target: TargetNetwork, views: list[torch.Tensor]) -> torch.Tensor:
    """Everything in a step that costs; any sum of its results has the loss's backward pass."""
    keys = [target(view) for view in views]
    queries = [online.embed(view) for view in views]
    results = list(queries)  # the static term
    for query, key in zip(queries, reversed(keys), strict=True):
        results += [online.flow(query, key), online.flow(key, query)]
    return torch.stack([result.sum() for result in results]).sum()


def _trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def lines(cost: Cost) -> list[str]:
    """For people: parameters and operations."""
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in cost.parts.items())
    return [
        f"{cost.parameters / 1e6:.1f} M trained parameters ({parts}); "
        f"{cost.target_parameters / 1e6:.1f} M of the EMA target",
        f"{cost.flops_per_image_step / 1e9:.0f} GFLOP per image and step "
        f"({cost.flops_per_image_forward / 1e9:.0f} of them forward; trunk "
        f"{cost.flops_per_view_trunk / 2e9:.1f} GMAC per view)",
    ]
