"""Adam that scales, clips and skips on the device: the host hears of it later, and never waits.

The fused Adam of PyTorch divides gradients by `grad_scale` and leaves everything as it is where
`found_inf` is set, both tensors on the device. The norm of the whole gradient decides both, so that one
pass over the gradients serves clipping, loss scaling and the guard against NaN and infinity.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_FIRST_SCALE, _GROWTH, _BACKOFF, _INTERVAL = 2.0**16, 2.0, 0.5, 2000


class LossScale:
    """fp16's loss scale, on the device: halved where gradients overflow, doubled after 2,000 good steps.

    No scale mends a loss that is not finite before it is scaled: in such a step it stays as it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), _FIRST_SCALE, device=device)
        self._good = torch.zeros((), dtype=torch.int32, device=device)
        self._bad_loss = torch.zeros((), device=device)

    def apply(self, loss: Tensor) -> Tensor:
        """The scaled loss [] of a part of the batch."""
        self._bad_loss = torch.maximum(self._bad_loss, (~torch.isfinite(loss.detach())).float())
        return loss * self.value

    def agree(self) -> None:
        """Before a step: a loss that is not finite on one rank is so on all; the host does not wait."""
        dist.all_reduce(self._bad_loss, dist.ReduceOp.MAX)

    def update(self, found_inf: Tensor) -> Tensor:
        """After a step.

        Args:
            found_inf: 1 if it was skipped [].

        Returns:
            1 if it was skipped because this scale was too high []. A scale below 1 never is: gradients
            that are too large without it are not finite for reasons of their own.
        """
        bad_loss = self._bad_loss > 0
        overflow = found_inf * ~bad_loss * (self.value >= 1)
        kept, good = self.value.clone(), self._good.clone()
        torch._amp_update_scale_(self.value, self._good, found_inf, _GROWTH, _BACKOFF, _INTERVAL)
        self.value.copy_(torch.where(bad_loss, kept, self.value))
        self._good.copy_(torch.where(bad_loss, good, self._good))
        self._bad_loss = torch.zeros_like(self._bad_loss)
        return overflow

    def state(self) -> dict[str, float]:
        """For the checkpoint; waits for the device."""
        return {"scale": float(self.value), "good_steps": float(self._good)}

    def load_state(self, state: dict[str, float]) -> None:
        """Take scale and count back."""
        self.value.fill_(state["scale"])
        self._good.fill_(int(state["good_steps"]))


class GuardedAdam(torch.optim.AdamW):
    """Fused Adam (decoupled weight decay) with clipping, loss scaling and skipping of non-finite steps.

    Args:
        parameters: one group; under ZeRO DeepSpeed replaces it by the rank's flat partition.
        learning_rate: see `set_rate`.
        weight_decay: per unit of learning rate.
        clip_norm: largest norm of the whole gradient, None for any.
        loss_scale: what the loss was multiplied by, None for 1.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        loss_scale: LossScale | None = None,
    ) -> None:
        parameters = list(parameters)
        super().__init__(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
        self._clip_norm, self._loss_scale = clip_norm, loss_scale
        self.sharded = False
        """Whether each rank holds a part of the gradient (ZeRO 1), so that norms add up over ranks."""
        zero = torch.zeros((), device=parameters[0].device)
        self.norm, self.found_inf, self.overflow = zero, zero.clone(), zero.clone()
        """Of the last step: norm of the gradient before clipping, 1 if it was skipped, and 1 if that was
        because the loss scale was too high; []."""

    def set_rate(self, learning_rate: float) -> None:
        """The learning rate of the next step."""
        for group in self.param_groups:
            group["lr"] = learning_rate

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step, or none where the gradient is not finite; all ranks decide alike."""
        assert closure is None
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        # Each tensor has a norm of its own; together they add up in float64.
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).double())
        if self.sharded:
            square = norm.square()
            dist.all_reduce(square)
            norm = square.sqrt()
        scale = self._loss_scale.value if self._loss_scale else norm.new_ones((), dtype=torch.float32)
        self.found_inf = (~torch.isfinite(norm)).float()
        self.norm = (norm / scale).float()
        if self._clip_norm is None:
            self.grad_scale = scale
        else:
            self.grad_scale = scale * (self.norm / self._clip_norm).clamp_min(1)
        super().step()
        if self._loss_scale:
            self.overflow = self._loss_scale.update(self.found_inf)
