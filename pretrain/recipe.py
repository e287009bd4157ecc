"""The training recipe: one typed model, from one YAML file, stored with every checkpoint and run."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hvc.base.addresses import CleanUri
from hvc.base.config import Config
from hvc.pretrain.architecture import Architecture


class ViewConfig(Config):
    """The two views of an image."""

    size: int = Field(256, ge=32, multiple_of=8)
    """Side of a view in pixels; the feature map's side is an eighth of it."""
    min_area: float = Field(0.0, ge=0, le=1)
    """Least share of the image's area that a crop covers (official code: 0)."""
    statistics: Literal["imagenet", "cifar10"] = "imagenet"
    """Mean and standard deviation that training views are normalised with (official code: cifar10)."""


class LossConfig(Config):
    """The hybrid loss."""

    radius: float = Field(0.1, gt=0)
    """Positive pairs lie strictly closer than this, in diagonals of the larger bin."""
    static_weight: float = Field(1.0, ge=0)
    """Weight of the static term; 0 leaves the dynamic term alone."""
    dynamic_weight: float = Field(1.0, ge=0)
    """Weight of the dynamic term; 0 leaves the static term alone."""


class EngineConfig(Config):
    """DeepSpeed."""

    zero_stage: Literal[0, 1] = 0
    """0: every rank holds the optimiser's state; 1: each rank holds its share."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: compute under autocast; weights, optimiser and EMA target stay fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU per process where there are GPUs, else the CPU."""


class CheckpointConfig(Config):
    """When to save, and how much to keep."""

    every: int = Field(500, ge=1)
    """Steps between checkpoints; the end always makes one."""
    keep: int = Field(3, ge=1)
    """Number of newest checkpoints kept on disk."""


class TrackingConfig(Config):
    """MLflow."""

    uri: CleanUri | None = None
    """Tracking URI; by default MLFLOW_TRACKING_URI, else `mlflow.db` beside the output folder."""

    experiment: str = "hvc"
    """Experiment that the run belongs to."""
    model: str = "hvc"
    """Registered model that every checkpoint becomes a version of."""
    upload_encoder: bool = True
    """Store the final `encoder.safetensors` as an artifact of the run, too."""


class TrainConfig(Config):
    """Everything that decides a training run."""

    name: str = Field("hvc", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run, and of its folder below `outputs/`."""
    data: str
    """A sharded dataset: a folder or `s3://bucket/prefix` that holds a manifest."""
    output: str = ""
    """Folder for checkpoints and the journal; by default `outputs/NAME`."""
    seed: int = Field(42, ge=0, lt=2**63)
    """Decides weights, order and crops."""
    architecture: Architecture = "resnet18"
    """Trunk."""
    batch_size: int = Field(128, ge=1)
    """Images per step, over all processes together."""
    epochs: int = Field(20, ge=1)
    """Passes over the data; `steps` overrides it."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps; by default as many as `epochs` take."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's learning rate, constant."""
    shuffle: bool = True
    """A new order each epoch; false: the manifest's order, every epoch alike (official image run)."""
    ema_momentum: float = Field(0.99, ge=0, le=1)
    """EMA momentum at step 0; rises to 1 along a cosine."""
    workers: int = Field(2, ge=0)
    """Loader processes per training process; 0 loads in the training process itself."""
    log_every: int = Field(10, ge=1)
    """Steps between two metric records."""
    views: ViewConfig = ViewConfig()
    loss: LossConfig = LossConfig()
    engine: EngineConfig = EngineConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _check(self) -> "TrainConfig":
        if self.loss.static_weight == 0 and self.loss.dynamic_weight == 0:
            raise ValueError("loss: static_weight and dynamic_weight cannot both be 0")
        return self

    @property
    def folder(self) -> Path:
        """Where checkpoints and the journal go."""
        return Path(self.output or Path("outputs") / self.name).absolute()

    def method(self) -> dict[str, Any]:
        """What decides the result: all but places, tracking, logging, and how the work is spread."""
        places = ("name", "data", "output", "tracking", "checkpoint", "workers", "log_every")
        spread: dict[str, Any] = dict.fromkeys(places, True)
        spread["engine"] = {"zero_stage", "device"}
        return self.model_dump(mode="json", exclude=spread)

    def method_digest(self) -> str:
        """sha256 of `method` (hex)."""
        return hashlib.sha256(json.dumps(self.method(), sort_keys=True).encode()).hexdigest()
