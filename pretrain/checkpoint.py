"""Contract 2, the checkpoint: a folder that counts only when it is complete.

    checkpoints/
      step-00000200/
        COMPLETE                    JSON: version, step, and bytes + sha256 of every other file
        state.json                  step, EMA step, world size, recipe and its digest, dataset digest
        model.safetensors           parameters: online network and EMA target, official key names
        optimizer.safetensors       Adam's state by parameter name, gathered whole
        buffers-00000.safetensors   BatchNorm buffers and RNG of rank 0 (one file per rank)
        encoder.safetensors         the online trunk alone, buffers merged over the ranks
      .step-00000400.1.tmp/         being written (attempt 1); ignored, removed at the next start

All files but the buffers are independent of the number of ranks. No pickle anywhere.
"""

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.base.files import read_json
from hvc.base.storage import sha256_file

CHECKPOINT_VERSION = 1
COMPLETE = "COMPLETE"
ENCODER = "encoder.safetensors"
_NAME = re.compile(r"^step-(\d{8,})$")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    folder: Path
    step: int
    sha256: str
    """Of the COMPLETE file, which holds the hashes of all others."""

    @property
    def encoder(self) -> Path:
        """The trunk's file."""
        return self.folder / ENCODER

    @property
    def state(self) -> dict[str, Any]:
        """The contents of state.json."""
        return json.loads((self.folder / "state.json").read_text())

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file, e.g. `model` or `buffers-00000`."""
        path = self.folder / f"{name}.safetensors"
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise HvcError(f"cannot read {path}: {error}; run again from an older checkpoint") from None

    def buffers(self, rank: int, world_size: int) -> dict[str, Tensor]:
        """Buffers for a rank: its own, or all ranks' merged where the number of ranks has changed."""
        if self.state["world_size"] == world_size:
            return self.tensors(f"buffers-{rank:05d}")
        return merge_buffers([self.tensors(path.stem) for path in sorted(self.folder.glob("buffers-*"))])


def step_name(step: int) -> str:
    """Folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def open_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint folder, its hashes checked; HvcError if it is incomplete or altered."""
    marker = folder / COMPLETE
    if not marker.exists():
        raise HvcError(f"{folder}: not a complete checkpoint (no {COMPLETE} in it)")
    content = read_json(marker)
    if content is None or not isinstance(content.get("files"), dict):
        raise HvcError(f"{marker}: damaged; use another checkpoint")
    if content["version"] > CHECKPOINT_VERSION:
        raise HvcError(f"{folder}: checkpoint version {content['version']} is newer than this hvc")
    for name, expected in content["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            raise HvcError(f"{path}: missing or of the wrong size; use another checkpoint")
        if sha256_file(path) != expected["sha256"]:
            raise HvcError(f"{path}: altered since it was written; use another checkpoint")
    return Checkpoint(folder, int(content["step"]), sha256_file(marker))


def complete_steps(root: Path) -> list[int]:
    """Steps of the folders below `root` that hold a COMPLETE marker, oldest first."""
    if not root.is_dir():
        return []
    names = [(path, _NAME.match(path.name)) for path in root.iterdir()]
    return sorted(int(match[1]) for path, match in names if match and (path / COMPLETE).exists())


def newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint whose hashes hold; damaged ones are named in the log and passed over."""
    for step in reversed(complete_steps(root)):
        try:
            return open_checkpoint(root / step_name(step))
        except HvcError as error:
            _log.warning("checkpoint passed over: %s", error)
    return None


def verified(root: Path, step: int) -> Checkpoint:
    """A checkpoint whose hashes another process has checked just now."""
    folder = root / step_name(step)
    return Checkpoint(folder, step, sha256_file(folder / COMPLETE))


def merge_buffers(ranks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One set of BatchNorm buffers for all ranks' data: mean of means, total variance."""
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


class CheckpointWriter:
    """Writes one checkpoint: every rank its part, then rank 0 commits."""

    def __init__(self, root: Path, step: int, attempt: int) -> None:
        self._root, self._step = root, step
        self.folder = root / f".{step_name(step)}.{attempt}.tmp"

    def write_tensors(self, name: str, tensors: dict[str, Tensor]) -> None:
        """One safetensors file, flushed to disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.safetensors"
        try:
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)
            sync(path)
        except (OSError, SafetensorError) as error:
            raise HvcError(f"cannot write {path}: {error}; free some space, then run again") from None

    def rank_files(self, world_size: int) -> list[Path]:
        """The buffers of all ranks; HvcError if rank 0 cannot see them all."""
        files = sorted(self.folder.glob("buffers-*.safetensors"))
        if len(files) != world_size:
            raise HvcError(
                f"{self.folder}: {len(files)} of {world_size} ranks' files are there; the output folder "
                "must be on storage that all nodes share"
            )
        return files

    def commit(self, state: dict[str, Any]) -> Checkpoint:
        """Rank 0, after all ranks have written: hashes, marker, and the name that makes it count."""
        final = self._root / step_name(self._step)
        try:
            (self.folder / "state.json").write_text(json.dumps(state, indent=1))
            files = {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                for path in sorted(self.folder.iterdir())
            }
            content = {"version": CHECKPOINT_VERSION, "step": self._step, "files": files}
            (self.folder / COMPLETE).write_text(json.dumps(content, indent=1))
            sync(self.folder / "state.json")
            sync(self.folder / COMPLETE)
            if final.exists():  # an earlier, damaged one of the same step
                shutil.rmtree(final)
            self.folder.rename(final)
            sync(self._root)
        except OSError as error:
            raise HvcError(
                f"cannot write {self.folder}: {error}; free some space, then run again"
            ) from None
        return Checkpoint(final, self._step, sha256_file(final / COMPLETE))


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clear_unfinished(root: Path) -> None:
    """Remove what killed attempts left half-written."""
    for path in root.glob(".step-*.tmp"):
        shutil.rmtree(path)


def prune(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` complete checkpoints."""
    for step in complete_steps(root)[:-keep]:
        retired = root / f".{step_name(step)}.old.tmp"  # out of sight first: never half a checkpoint
        (root / step_name(step)).rename(retired)
        shutil.rmtree(retired)
