"""A trunk that can be evaluated, as it was found by what a user named."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hvc.pretrain.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hvc.pretrain.checkpoints.marker import ENCODER

Kind = Literal["file", "untrained", "pixels", "first-mask"]
"""`file`: trained weights; the others are baselines: a network as initialised, the image's own colours
as features, and the first mask for every frame."""


@dataclass(frozen=True)
class Trunk:
    """A trunk, and where its scores belong."""

    reference: str
    """As the user wrote it."""
    encoder: Path | None
    """`encoder.safetensors`; None for baselines. One that comes from a bucket, or from a file of another
    layout, is a temporary file, there as long as this object."""
    sha256: str
    """Of the weights' file; names the results folder."""
    step: int
    run_id: str | None = None
    """The MLflow run that made it, if any is known."""
    held: object = field(default=None, repr=False, compare=False)
    """Keeps the temporary file."""
    kind: Kind = "file"


def trunk_of(reference: str, checkpoint: Checkpoint, run_id: str | None) -> Trunk:
    """The trunk of a checkpoint that was opened with its encoder."""
    digest = checkpoint.marker.files[ENCODER].sha256  # checked: it was opened with this file
    return Trunk(reference, checkpoint.path(ENCODER), digest, checkpoint.step, run_id, checkpoint)


def open_encoder(address: str) -> Checkpoint:
    """A checkpoint of which the trunk alone is read and checked."""
    return open_checkpoint(address, files=[ENCODER])
