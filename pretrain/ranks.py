"""The processes of a run as a group: what they must agree on, over the CPU so no GPU is waited for."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.pretrain.processes import Place

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
T = TypeVar("T")


def import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, quiet, and without building its shared-memory kernels.

    Those kernels serve inference only, yet DeepSpeed compiles them at start-up on CPUs and fails
    where there is no compiler; the builder is replaced before anything calls it.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    return deepspeed


class Ranks:
    """All processes of the run; every method is called by all of them."""

    def __init__(self, place: Place, device: torch.device) -> None:
        self.place = place
        deepspeed = import_deepspeed(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        deepspeed.init_distributed(
            backend, auto_mpi_discovery=False, verbose=False, timeout=COLLECTIVE_TIMEOUT
        )
        self._group = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)

    def first_decides(self, decide: Callable[[], T]) -> T:
        """Rank 0 runs `decide`; all get its value, or all end with its error (which rank 0 tells)."""
        answer: list[Any] = [None, None]
        error: HvcError | None = None
        if self.place.first:
            try:
                answer[0] = decide()
            except HvcError as caught:
                error, answer[1] = caught, caught.exit_code
        dist.broadcast_object_list(answer, src=0, group=self._group)
        if error is not None:
            raise error
        if answer[1] is not None:
            raise SystemExit(answer[1])
        value: T = answer[0]
        return value

    def any_rank(self, flag: bool) -> bool:
        """True on all ranks if it is on one."""
        value = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group)
        return bool(value.item())

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Element-wise sum over all ranks, on the CPU, float64."""
        total = values.detach().to("cpu", torch.float64)
        dist.all_reduce(total, group=self._group)
        return total

    def barrier(self) -> None:
        """Wait for all ranks."""
        dist.barrier(group=self._group)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave the group at the end: its threads, left alive, can abort the process when it exits.

        After an error NCCL could wait here for ranks that will never come; there the exit ends it.
        """
        try:
            yield
        except BaseException:
            if dist.get_backend() != "nccl":
                dist.destroy_process_group()
            raise
        dist.destroy_process_group()
