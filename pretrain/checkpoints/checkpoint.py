"""Contract 2, the checkpoint: a folder that counts only when it is complete.

    checkpoints/                  a folder, or a prefix in a bucket
      step-00000200/
        COMPLETE                  JSON: version, step, bytes + sha256 of every other file; written last
        state.json                step, EMA step, number of ranks, recipe and its digest, dataset digest
        model.safetensors         parameters: online network and EMA target, official key names
        optimizer.safetensors     Adam's state by parameter name, gathered whole
        buffers.safetensors       BatchNorm buffers and RNG of every rank: `rank-00000/NAME`
        encoder.safetensors       the online trunk alone, buffers merged over the ranks

All files but the buffers are independent of the number of ranks. No pickle anywhere. Version 1, with
one `buffers-00000.safetensors` per rank, is still read. `checkpoint_saver` writes.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.base.storage import MissingError, open_store
from hvc.pretrain.checkpoints.files import Files
from hvc.pretrain.checkpoints.marker import (
    BUFFERS,
    CHECKPOINT_VERSION,
    COMPLETE,
    ENCODER,
    STATE,
    DamagedError,
    Marker,
    parse_marker,
    step_name,
    step_of,
)
from hvc.pretrain.checkpoints.retention import clear_unfinished, survey

__all__ = [
    "CHECKPOINT_VERSION",
    "COMPLETE",
    "ENCODER",
    "Checkpoint",
    "DamagedError",
    "clear_unfinished",
    "complete_steps",
    "merge_buffers",
    "newest",
    "open_checkpoint",
    "step_name",
    "verified",
]

_RANK = re.compile(r"^rank-(\d{5,})/(.+)$", re.DOTALL)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; whatever is read from it is what was written, or an error."""

    address: str
    """Folder or `s3://` address."""
    step: int
    sha256: str
    """Of the COMPLETE file, which holds the hashes of all others."""
    marker: Marker = field(repr=False)
    files: Files = field(repr=False, compare=False)

    @cached_property
    def state(self) -> dict[str, Any]:
        """The contents of state.json."""
        try:
            state = json.loads(self.path(STATE).read_bytes())
        except (OSError, ValueError) as error:
            raise HvcError(f"{self.address}/{STATE}: not readable ({error})") from None
        return dict(state)

    def path(self, name: str) -> Path:
        """A file of it, checked, on this machine.

        That of a checkpoint in a bucket is a temporary copy, there as long as this object.
        """
        return self.files.path(name)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file, on the CPU: `model`, `optimizer`, `buffers` or `encoder`."""
        file = f"{name}.safetensors"
        try:
            return load_file(self.path(file))
        except (OSError, SafetensorError) as error:
            raise HvcError(f"cannot read {self.address}/{file}: {error}; use another checkpoint") from None

    @cached_property
    def rank_buffers(self) -> list[dict[str, Tensor]]:
        """Buffers and RNG of every rank that there was."""
        if self.marker.version == 1:
            names = sorted(name for name in self.marker.files if name.startswith("buffers-"))
            return [self.tensors(name.removesuffix(".safetensors")) for name in names]
        ranks: dict[int, dict[str, Tensor]] = {}
        for key, value in self.tensors("buffers").items():
            match = _RANK.match(key)
            if match:
                ranks.setdefault(int(match[1]), {})[match[2]] = value
        if sorted(ranks) != list(range(len(ranks))) or not ranks:
            raise HvcError(f"{self.address}/{BUFFERS}: holds ranks {sorted(ranks)}; use another checkpoint")
        return [ranks[rank] for rank in range(len(ranks))]

    def buffers(self, rank: int, world_size: int) -> dict[str, Tensor]:
        """Buffers for a rank: its own and its RNG, or all ranks' merged where their number has changed."""
        if len(self.rank_buffers) == world_size:
            return self.rank_buffers[rank]
        return merge_buffers(self.rank_buffers)

    def encoder_path(self, folder: Path) -> Path:
        """The trunk's file: its own on a file system, a copy in `folder` from a bucket."""
        path = self.path(ENCODER)
        if not self.address.startswith("s3://"):
            return path
        try:
            return Path(shutil.copyfile(path, folder / ENCODER))
        except OSError as error:
            raise HvcError(f"cannot write {folder / ENCODER}: {error.strerror}") from None


def open_checkpoint(address: str | Path, files: Collection[str] | None = None) -> Checkpoint:
    """The checkpoint in a folder or at an `s3://` address, complete and unaltered.

    `files` limits what is checked at once to COMPLETE and these; any other is checked when it is read.
    DamagedError names the file that is missing, altered or of the wrong size. Where the address cannot
    be read at all it is another HvcError.
    """
    store = open_store(address)
    try:
        data = store.read(COMPLETE)
    except MissingError:
        raise DamagedError(f"{address}: not a complete checkpoint (no {COMPLETE} in it)") from None
    marker = parse_marker(data, store.where(COMPLETE))
    said = step_of(store.address.rpartition("/")[2])
    if said not in (None, marker.step):
        raise DamagedError(f"{store.where(COMPLETE)}: says step {marker.step}; use another checkpoint")
    opened = Checkpoint(
        store.address, marker.step, hashlib.sha256(data).hexdigest(), marker, Files(store, marker)
    )
    for name in sorted(marker.files if files is None else files):
        opened.path(name)
    return opened


def complete_steps(address: str | Path) -> list[int]:
    """Steps of the folders at the address that hold a COMPLETE marker, oldest first."""
    return sorted(step for step, files in survey(open_store(address)).items() if COMPLETE in files)


def newest(address: str | Path) -> Checkpoint | None:
    """The newest checkpoint whose hashes hold; damaged ones are named in the log and passed over.

    None where there is no good one. A place that cannot be read is an HvcError: what can't be seen now
    is not damaged, and to go on from an older one would throw work away.
    """
    for step in reversed(complete_steps(address)):
        try:
            return open_checkpoint(_place(address, step))
        except DamagedError as error:
            _log.warning("checkpoint passed over: %s", error)
    return None


def verified(address: str | Path, step: int) -> Checkpoint:
    """A step's checkpoint of which only COMPLETE is checked now, each other file when it is read."""
    return open_checkpoint(_place(address, step), files=())


def _place(address: str | Path, step: int) -> str:
    return f"{open_store(address).address}/{step_name(step)}"


def merge_buffers(ranks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One set of BatchNorm buffers for all ranks' data: mean of means, total variance.

    Counters (`num_batches_tracked`) take the largest. RNG states belong to a rank and are left out.
    """
    merged = {}
    for key in (name for name in ranks[0] if not name.startswith("rng/")):
        values = torch.stack([rank[key] for rank in ranks])
        if key.endswith("running_mean"):
            merged[key] = values.mean(0)
        elif key.endswith("running_var"):
            means = torch.stack([rank[key.removesuffix("var") + "mean"] for rank in ranks])
            merged[key] = values.mean(0) + means.var(0, correction=0)
        else:
            merged[key] = values.amax(0)
    return merged
