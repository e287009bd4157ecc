"""What is done about steps whose loss or gradient is not finite: named, skipped, counted, ended.

The device skips such a step by itself (`optimiser.py`); its flags reach the host one step later on a
GPU, at once on a CPU. All ranks see the same verdict, so they act alike without asking each other.
Under fp16 a gradient that overflows is the loss scale's work, and none of this one's.
"""

import logging
import math
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.pretrain.recipe import TrainConfig

_log = logging.getLogger(__name__)
ADVICE = (
    "the last checkpoint is untouched. Go on from it with engine.precision=fp32 if that was lower, or "
    "with engine.clip_norm; or start anew with a lower learning_rate and another output="
)


class Verdict(NamedTuple):
    """What became of an earlier step."""

    step: int
    skipped: bool
    overflow: bool
    """Skipped because the loss scale was too high, which is then halved: no alarm."""

    @property
    def bad(self) -> bool:
        """Whether the policy has to act."""
        return self.skipped and not self.overflow


class FiniteGuard:
    """Carries flags from the device to the host without waiting, and counts what they say."""

    def __init__(self, config: TrainConfig, rank: int, device: torch.device) -> None:
        self._limit, self._policy = config.non_finite.limit, config.non_finite.policy
        self._rank, self._device = rank, device
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()
        self.lag = 0 if device.type == "cpu" else 1
        """Steps that flags come late: a GPU's last one is still at work."""
        self.in_a_row = 0
        """Bad steps since the last good one; overflows are neither."""

    def note(
        self, step: int, loss: Tensor, own_gradient: Tensor, found_inf: Tensor, overflow: Tensor
    ) -> None:
        """Send a step's flags on their way.

        Args:
            step: of the run.
            loss: this rank's loss [].
            own_gradient: this rank's gradient of the trunk's first convolution, before it is averaged:
                whatever goes wrong further up reaches it.
            found_inf: 1 if the step was skipped, on all ranks alike [].
            overflow: 1 if that was the loss scale's fault, on all ranks alike [].
        """
        own = [~torch.isfinite(loss.detach()), ~torch.isfinite(own_gradient)]
        flags = torch.stack([*own, found_inf > 0, overflow > 0])
        event = None
        if self._device.type == "cuda":
            flags = torch.empty(4, dtype=torch.bool, pin_memory=True).copy_(flags, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._waiting.append((step, flags, event))

    def verdicts(self, *, all_of_them: bool = False) -> list[Verdict]:
        """Of the steps whose flags are due: all but the last `lag`, or all, which waits for the device.

        HvcError when too many steps in a row were not finite, or the policy is to stop at the first.
        """
        keep = 0 if all_of_them else self.lag
        found = []
        while len(self._waiting) > keep:
            step, flags, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            found.append(self._judge(step, *flags.tolist()))
        return found

    def limit_rollbacks(self, count: int) -> None:
        """HvcError when a run has gone back too often."""
        if count > self._limit:
            raise HvcError(f"{count - 1} roll-backs did not help (non_finite.limit); {ADVICE}")

    def forget(self) -> None:
        """Training goes back to an earlier step."""
        self._waiting.clear()
        self.in_a_row = 0

    def _judge(self, step: int, loss: bool, gradient: bool, skipped: bool, overflow: bool) -> Verdict:
        verdict = Verdict(step, skipped, overflow)
        if not skipped:
            self.in_a_row = 0
        if verdict.bad:
            self.in_a_row += 1
            self._tell(step, loss, gradient)
            # Going back has a limit of its own.
            most = {"stop": 1, "skip": self._limit}.get(self._policy, math.inf)
            if self.in_a_row >= most:
                raise HvcError(
                    f"loss or gradient is not finite at step {step}, {self.in_a_row} in a row "
                    f"(non_finite.policy {self._policy}, limit {self._limit}); {ADVICE}"
                )
        return verdict

    def _tell(self, step: int, loss: bool, gradient: bool) -> None:
        if loss or gradient:
            what = "loss" if loss else "gradient"
            _log.warning("rank %d: the %s is not finite at step %d", self._rank, what, step)
        elif self._rank == 0:
            _log.warning("step %d: the averaged gradient is not finite", step)
