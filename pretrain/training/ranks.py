"""The processes of a run as a group: what they must agree on, over the CPU so no GPU is waited for."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hvc.base.errors import HvcError, PeerLostError
from hvc.pretrain.training.processes import Place

T = TypeVar("T")
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "NCCL error")
"""What a collective says when another process is gone."""

_SLICE_SECONDS = 1.0


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
    # Its warnings are of what is done here on purpose, and go to stdout, which is for results.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    return deepspeed


class Ranks:
    """All processes of the run; every method is called by all of them."""

    def __init__(self, place: Place, device: torch.device, timeout: timedelta) -> None:
        """`timeout`: how long a collective may take, and with it how far ranks may be apart."""
        self.place = place
        deepspeed = import_deepspeed(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False, timeout=timeout)
        self._group = dist.new_group(backend="gloo", timeout=timeout)

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

    def first_works(self, work: Callable[[], T], meanwhile: Callable[[], object]) -> T:
        """As `first_decides` for what may take long; `meanwhile` is called on all ranks now and then.

        So neither a watchdog nor the time limit of collectives ends ranks that only wait. `work` runs in
        another thread.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="first") as pool:
            working: list[Future[T]] = [pool.submit(work)] if self.place.first else []
            while not self.first_decides(lambda: not wait(working, _SLICE_SECONDS).not_done):
                meanwhile()
            return self.first_decides(lambda: working[0].result())

    def begin_vote(self, flag: bool) -> Callable[[], bool]:
        """Start to ask whether `flag` is set on any rank; the answer is waited for when it is called."""
        if self.place.world_size == 1:
            return lambda: flag
        value = torch.tensor([flag], dtype=torch.int32)
        work = dist.all_reduce(value, dist.ReduceOp.MAX, group=self._group, async_op=True)

        def result() -> bool:
            work.wait()
            return bool(value.item())

        return result

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Element-wise sum over all ranks, on the CPU, float64."""
        total = values.detach().to("cpu", torch.float64)
        dist.all_reduce(total, group=self._group)
        return total

    def gather(self, values: Tensor) -> list[Tensor]:
        """Rank 0: every rank's tensor (CPU, same shape and dtype), in the order of ranks; else nothing."""
        size = self.place.world_size
        received = [torch.empty_like(values) for _ in range(size)] if self.place.first else []
        dist.gather(values, received or None, dst=0, group=self._group)
        return received

    def gather_objects(self, value: Any) -> list[Any]:
        """Rank 0: every rank's value, in the order of ranks; else nothing."""
        received: list[Any] = [None] * self.place.world_size if self.place.first else []
        dist.gather_object(value, received or None, dst=0, group=self._group)
        return received

    def broadcast_tensors(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rank 0's tensors (CPU), by name, on all ranks; what the others give is not looked at."""
        if self.place.world_size == 1:
            return tensors
        kinds: list[Any] = [[(name, value.shape, value.dtype) for name, value in tensors.items()]]
        dist.broadcast_object_list(kinds, src=0, group=self._group)
        received: dict[str, Tensor] = {}
        for dtype in sorted({dtype for _, _, dtype in kinds[0]}, key=str):
            own = [(name, shape) for name, shape, kind in kinds[0] if kind == dtype]
            flat = torch.empty(sum(shape.numel() for _, shape in own), dtype=dtype)
            if self.place.first:
                torch.cat([tensors[name].reshape(-1) for name, _ in own], out=flat)
            dist.broadcast(flat, src=0, group=self._group)
            pieces = torch.split(flat, [shape.numel() for _, shape in own])
            received |= {name: piece.view(shape) for (name, shape), piece in zip(own, pieces, strict=True)}
        return received

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave the group at the end: its threads, left alive, can abort the process when it exits.

        After an error NCCL could wait here for ranks that will never come; there the exit ends it.
        """
        try:
            yield
        except BaseException as error:
            if dist.get_backend() != "nccl":
                dist.destroy_process_group()
            said = [mark for mark in _LOST if mark in str(error)] if isinstance(error, RuntimeError) else []
            if said:
                raise PeerLostError(
                    f"rank {self.place.rank} lost its peer: another rank ended or cannot be reached "
                    f"({said[0]}). What ended that one stands in its own words, the launcher's or Slurm's; "
                    "start the same command again: it goes on from the last checkpoint"
                ) from None
            raise
        dist.destroy_process_group()
