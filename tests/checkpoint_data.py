"""Small checkpoints whose every value follows from the step, so that a wrong tensor is seen."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hvc.base.storage import open_store
from hvc.pretrain.checkpoints.checkpoint import Checkpoint
from hvc.pretrain.checkpoints.writer import Snapshot, write_checkpoint
from hvc.pretrain.weights.encoder_file import EncoderMetadata

RANKS = 2


def metadata(step: int) -> EncoderMetadata:
    """What the trunk file says."""
    return EncoderMetadata(
        architecture="resnet18",
        stride_1_layers=("layer3", "layer4"),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        step=step,
    )


def snapshot(step: int, ranks: int = RANKS, size: int = 40, **state: Any) -> Snapshot:
    """All of a run at a step; `size` numbers in the larger tensors."""
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(size, generator=generator)
    return Snapshot(
        step=step,
        model={"online.w": weight, "target.w": weight / 2},
        optimizer={"w/exp_avg": weight * 3, "step": torch.tensor(float(step))},
        buffers=[rank_buffers(step, rank) for rank in range(ranks)],
        encoder={"conv1.weight": weight * 5},
        metadata=metadata(step),
        state={"step": step, "world_size": ranks, **state},
    )


def rank_buffers(step: int, rank: int) -> dict[str, Tensor]:
    """One rank's BatchNorm buffers and generator."""
    return {
        "bn.running_mean": torch.full((2,), float(rank)),
        "bn.running_var": torch.ones(2),
        "bn.num_batches_tracked": torch.tensor(step + rank),
        "rng/torch": torch.arange(16, dtype=torch.uint8) + rank,
    }


def write(address: str | Path, step: int, **more: Any) -> Checkpoint:
    """One checkpoint, written at once."""
    return write_checkpoint(open_store(address), snapshot(step, **more))


def assert_intact(found: Checkpoint, **more: Any) -> None:
    """Every tensor of it is what `snapshot` of its step gives."""
    wanted = snapshot(found.step, **more)
    assert found.state == wanted.state
    buffers = {f"rank-{n:05d}/{k}": v for n, own in enumerate(wanted.buffers) for k, v in own.items()}
    files = {"model": wanted.model, "optimizer": wanted.optimizer, "buffers": buffers}
    for name, tensors in (files | {"encoder": wanted.encoder}).items():
        read = found.tensors(name)
        assert read.keys() == tensors.keys()
        for key, value in tensors.items():
            assert read[key].dtype == value.dtype
            assert torch.equal(read[key], value), f"{name}: {key}"


def write_version_1(root: Path, step: int, world_size: int = 1) -> Path:
    """A checkpoint as version 1 laid it out."""
    wanted, folder = snapshot(step, world_size), root / f"step-{step:08d}"
    folder.mkdir(parents=True)
    save_file(wanted.model, folder / "model.safetensors")
    save_file(wanted.optimizer, folder / "optimizer.safetensors")
    for rank, own in enumerate(wanted.buffers):
        save_file(own, folder / f"buffers-{rank:05d}.safetensors")
    text = wanted.metadata.model_dump_json(
        include={"architecture", "stride_1_layers", "mean", "std", "step"}
    )
    assert not callable(wanted.encoder)
    save_file(wanted.encoder, folder / "encoder.safetensors", {"hvc": text, "format": "pt"})
    (folder / "state.json").write_text(json.dumps(wanted.state, indent=1))
    files = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.iterdir())
    }
    content = {"version": 1, "step": step, "files": files}
    (folder / "COMPLETE").write_text(json.dumps(content, indent=1))
    return folder
