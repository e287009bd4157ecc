"""The EMA target: momentum schedule, update, and the one owner of the EMA step."""

import math
from typing import Any

import torch
from torch import Tensor, nn

BASE_MOMENTUM = 0.99


def momentum(step: int, total_steps: int, base: float = BASE_MOMENTUM) -> float:
    """Cosine from `base` at step 0 to 1 at `total_steps`."""
    return 1 - (1 - base) * (math.cos(math.pi * step / total_steps) + 1) / 2


class EmaTarget:
    """The target network: fp32, outside the engine, moved towards the online network once a step.

    Parameters move by EMA. BatchNorm buffers do not: the target stays in training mode, normalises
    with its own batch's statistics and keeps its own running ones, as in the official code.
    """

    def __init__(self, network: nn.Module, total_steps: int, base: float = BASE_MOMENTUM) -> None:
        self.network = network.requires_grad_(False).train()
        self.total_steps, self.base = total_steps, base
        self.step = 0
        self.last_momentum = base

    @torch.no_grad()
    def update(self, online: list[Tensor]) -> float:
        """Move towards the online parameters (same order as the target's); returns the momentum used.

        Called once per optimiser step, before the target passes of that step: at step s the target
        sees the online weights as they were at the end of step s-1.
        """
        value = momentum(self.step, self.total_steps, self.base)
        torch._foreach_lerp_(list(self.network.parameters()), online, 1 - value)
        self.step, self.last_momentum = self.step + 1, value
        return value

    def state(self) -> dict[str, Any]:
        """The EMA step (weights and buffers are saved as tensors)."""
        return {"step": self.step, "total_steps": self.total_steps, "base": self.base}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the EMA step back."""
        self.step = int(state["step"])

    def restart(self) -> None:
        """Begin the schedule of the momentum anew (the recipe's `ema_restart`)."""
        self.step = 0
