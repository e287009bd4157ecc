"""What a checkpoint says beside its tensors, and the trunk that it hands on."""

from typing import Any

import torch
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.base.stage import Provenance
from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking.provenance_facts import code_facts
from hvc.pretrain.training.finite import ADVICE
from hvc.pretrain.weights.encoder_file import EncoderMetadata, metadata_of

TRUNK = "online_encoder."
"""Prefix of the online trunk's tensors (official key names)."""


def trunk_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The online trunk's tensors under torchvision's names, out of all networks' ones."""
    return {name.removeprefix(TRUNK): value for name, value in tensors.items() if name.startswith(TRUNK)}


def trunk_metadata(config: TrainConfig, step: int) -> EncoderMetadata:
    """What the trunk's file says of itself."""
    return metadata_of(config.architecture, step, config.method_digest())


def refuse_diverged(model: dict[str, Tensor], step: int) -> None:
    """HvcError if a weight is not finite: such a checkpoint is never written."""
    for name, value in model.items():
        if not bool(torch.isfinite(value).all()):
            raise HvcError(f"weights are not finite at step {step} ({name}); {ADVICE}")


def run_state(
    config: TrainConfig, data: TrainingData, provenance: Provenance, progress: dict[str, Any]
) -> dict[str, Any]:
    """The contents of state.json; `progress` is what changes while a run goes on."""
    return {
        **progress,
        "attempt": provenance.attempt,
        "recipe": config.resolved(),
        "method": config.method_digest(),
        "dataset": data.digest,
        "code": code_facts(),
        "torch": torch.__version__,
    }
