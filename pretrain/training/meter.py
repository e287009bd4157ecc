"""What a run says of itself while it goes: averages between two records."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hvc.pretrain.data.batch import Batch
from hvc.pretrain.data.indexes import Counts
from hvc.pretrain.model.network import StepLoss

_NAMES = (
    "train/loss",
    "train/static",
    "train/dynamic",
    "train/positive_pairs",
    "train/images_without_pairs",
    "train/feature_spread",
)


class Meter:
    """Sums over the steps since the last record; figures stay on the device until they are asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: Tensor | None = None
        self._norms: list[Tensor] = []
        self._images = self._steps = 0
        self._waited = 0.0
        self._counts = np.zeros(len(Counts.NAMES))
        self._start = time.monotonic()

    def add(self, batch: Batch, parts: list[tuple[StepLoss, int]], norm: Tensor, skipped: Tensor) -> None:
        """Count one step of this rank; what was skipped counts as work, but not in the means.

        Args:
            batch: the step's.
            parts: loss of each part of it, and its number of images.
            norm: of the gradient [].
            skipped: 1 if the step was skipped [].
        """
        sums = torch.zeros(len(_NAMES) + 1, dtype=torch.float64, device=self._device)
        for loss, images in parts:
            # In the order of _NAMES, which is StepLoss's own.
            sums += torch.stack([*(value.detach() for value in loss), torch.ones_like(norm)]) * images
            self._images += images
        sums = torch.where(skipped > 0, 0.0, sums)
        self._sums = sums if self._sums is None else self._sums + sums
        self._norms.append(torch.stack([torch.where(skipped > 0, 0.0, norm), skipped]))
        self._steps += 1
        self._waited += batch.waited
        self._counts += batch.counts

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stop the clock, so that saving does not count as slow training."""
        start = time.monotonic()
        yield
        self._start += time.monotonic() - start

    def result(self, gather: Callable[[Any], list[Any]], extra: dict[str, float]) -> dict[str, float]:
        """Rank 0: means over all images of all ranks, and the speed of the whole run; else nothing.

        Args:
            gather: every rank's object to rank 0.
            extra: further figures of this rank, joined over the ranks.
        """
        assert self._sums is not None
        norms = torch.stack(self._norms).double().sum(0).tolist()
        seconds = max(time.monotonic() - self._start, 1e-9)
        own = {
            "sums": self._sums.tolist(),
            "images": self._images,
            "waited": self._waited,
            "counts": self._counts,
            "memory": memory_figures(self._device),
            "extra": extra,
        }
        ranks = gather(own)
        if not ranks:
            return {}
        *sums, counted = np.sum([rank["sums"] for rank in ranks], axis=0).tolist()
        images = sum(rank["images"] for rank in ranks)
        waited = sum(rank["waited"] for rank in ranks) / len(ranks)
        good = self._steps - norms[1]
        # Where every step was skipped there is no mean to tell.
        values = {name: total / counted for name, total in zip(_NAMES, sums, strict=True) if counted}
        values |= {"train/gradient_norm": norms[0] / good} if good else {}
        counts = np.sum([rank["counts"] for rank in ranks], axis=0).tolist()
        for kind in ("memory", "extra"):
            for name in sorted({name for rank in ranks for name in rank[kind]}):
                values[name] = max(rank[kind][name] for rank in ranks if name in rank[kind])
        return (
            values
            | _reading(dict(zip(Counts.NAMES, counts, strict=True)))
            | {
                "train/non_finite_steps": norms[1],
                "perf/images_per_second": images / seconds,
                "perf/step_seconds": seconds / self._steps,
                "perf/wait_seconds": waited / self._steps,
                "perf/wait_share": min(waited / seconds, 1.0),
            }
        )


def memory_figures(device: torch.device) -> dict[str, float]:
    """Most memory that this process held so far, in GB (10^9 bytes); a GPU's by PyTorch's count."""
    values = {"system/memory/process_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    if device.type == "cuda":
        values["system/memory/gpu_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
        values["system/memory/gpu_reserved_gb"] = torch.cuda.max_memory_reserved(device) / 1e9
    return values


def _reading(counts: dict[str, float]) -> dict[str, float]:
    """What reading from object storage cost since the last record, over all ranks."""
    values = {
        "system/loader/fetched_mb": counts["bytes"] / 1e6,
        "system/loader/requests": counts["requests"],
        "system/loader/retries": counts["retries"],
        "system/loader/refetches": counts["refetches"],
    }
    asked = counts["cache_hits"] + counts["cache_misses"]
    return values | {"system/loader/cache_hit_rate": counts["cache_hits"] / asked} if asked else values
