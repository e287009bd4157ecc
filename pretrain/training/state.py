"""All of a run's state: taken together over the ranks for a checkpoint, and given back from one.

Only rank 0 touches storage. What the others own (BatchNorm's statistics, generators; 0.1 MB) comes to it,
and what was read goes out from it, by collectives: no file system has to be shared, and none of its
delays can make half a checkpoint.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hvc.pretrain.checkpoints.checkpoint import Checkpoint
from hvc.pretrain.training.buffers import FlatBuffers
from hvc.pretrain.training.engine import Engine, copy_to_cpu, saved
from hvc.pretrain.training.ranks import Ranks

_GENERATORS = "rng/"


class RunState:
    """The tensors of a run on this rank, and their ways to rank 0 and back. All ranks call all methods."""

    def __init__(
        self, networks: list[nn.Module], engine: Engine, buffers: FlatBuffers, ranks: Ranks
    ) -> None:
        self._networks, self._engine, self._buffers, self._ranks = networks, engine, buffers, ranks
        self._device = engine.device

    def collect(self) -> tuple[dict[str, Tensor], dict[str, Tensor], list[dict[str, Tensor]]]:
        """Rank 0: copies of parameters and Adam's state, and every rank's buffers and generators."""
        optimiser = self._engine.optimiser_state(wanted=self._ranks.place.first)
        buffers = self._gather()
        if not self._ranks.place.first:
            return {}, {}, []
        model = {name: copy_to_cpu(value) for name, value in self._parameters()}
        return model, optimiser, buffers

    def restore(self, found: Checkpoint | None) -> dict[str, Any]:
        """Take a checkpoint over; rank 0 gives it. Returns its `state` on all ranks."""
        size = self._ranks.place.world_size

        def read() -> dict[str, Any]:
            assert found is not None
            return {"state": found.state, "same": found.state["world_size"] == size}

        head = self._ranks.first_decides(read)
        tensors = self._spread(lambda: found.tensors("model") if found else {})
        with torch.no_grad():
            for name, value in self._parameters():
                value.copy_(saved(tensors, name))
        self._engine.adopt_parameters()
        self._engine.load_optimiser_state(self._spread(lambda: found.tensors("optimizer") if found else {}))
        for rank in range(size):  # one by one: only one rank's at a time lies in memory twice
            own = self._spread(lambda rank=rank: found.buffers(rank, size) if found else {})  # type: ignore[misc]
            merged = not head["same"]  # one set for all ranks
            if merged or rank == self._ranks.place.rank:
                self._take(own)
            if merged:
                break
        state: dict[str, Any] = head["state"]
        return state

    def _parameters(self) -> list[tuple[str, Tensor]]:
        return [pair for network in self._networks for pair in network.named_parameters()]

    def _spread(self, read: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        held: dict[str, Tensor] = {}

        def first() -> None:
            held.update(read())

        self._ranks.first_decides(first)  # an unreadable file ends all ranks, with its name
        return self._ranks.broadcast_tensors(held)

    def _gather(self) -> list[dict[str, Tensor]]:
        flats = {dtype: self._ranks.gather(copy_to_cpu(flat)) for dtype, flat in self._buffers.flat.items()}
        generators = {name: self._ranks.gather(value) for name, value in self._generators().items()}
        if not self._ranks.place.first:
            return []
        return [
            self._buffers.tensors({dtype: received[rank] for dtype, received in flats.items()})
            | {name: received[rank] for name, received in generators.items()}
            for rank in range(self._ranks.place.world_size)
        ]

    def _take(self, tensors: dict[str, Tensor]) -> None:
        self._buffers.load(tensors)
        if f"{_GENERATORS}torch" in tensors:
            torch.set_rng_state(tensors[f"{_GENERATORS}torch"].clone())
        if self._device.type == "cuda" and f"{_GENERATORS}cuda" in tensors:
            torch.cuda.set_rng_state(tensors[f"{_GENERATORS}cuda"].clone(), self._device)

    def _generators(self) -> dict[str, Tensor]:
        states = {f"{_GENERATORS}torch": torch.get_rng_state()}
        if self._device.type == "cuda":
            states[f"{_GENERATORS}cuda"] = torch.cuda.get_rng_state(self._device)
        return states
