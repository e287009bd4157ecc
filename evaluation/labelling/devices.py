"""Which devices an evaluation uses, one entry per process."""

import os

import torch

from hvc.base.errors import HvcError
from hvc.data_prep.pool import default_workers
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.sharing import free_memory, worker_bytes, worker_count
from hvc.evaluation.layouts.images import picture_size
from hvc.evaluation.layouts.sequences import Sequence


def kind_of(config: EvaluateConfig) -> str:
    """`cpu` or `cuda`; HvcError when a GPU is asked for and there is none."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise HvcError("device=cuda, but PyTorch finds no GPU on this machine; take device=cpu")
    return ("cuda" if available else "cpu") if config.device == "auto" else config.device


def devices_for(config: EvaluateConfig, kind: str, sequences: list[Sequence]) -> list[str]:
    """The device of each process that is to work on these sequences; one process is this one."""
    if kind == "cuda":
        gpus = torch.cuda.device_count()
        count = max(1, min(config.workers or gpus, len(sequences)))
        return [f"cuda:{number % gpus}" for number in range(count)]
    sizes = [picture_size(sequence.frames[0]) for sequence in sequences]
    largest = max(sizes, key=lambda size: size[0] * size[1])
    pixels = sum(
        size[0] * size[1] * len(sequence.frames) for size, sequence in zip(sizes, sequences, strict=True)
    )
    each = worker_bytes(largest, config.protocol.context, merged=config.merge is not None)
    count = worker_count(config.workers, len(sequences), default_workers(), free_memory(), each, pixels)
    return ["cpu"] * count


def threads_for(devices: list[str]) -> int:
    """Threads of each process: the cores shared out, unless the environment says how many."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return max(1, default_workers() // len(devices))
