"""The training recipe: one typed model, from one YAML file, stored with every checkpoint and run."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from hvc.base.addresses import CleanUri
from hvc.base.config import Config
from hvc.pretrain.model.architecture import Architecture


class DataSource(Config):
    """One sharded dataset of a recipe."""

    address: str
    """A folder or `s3://bucket/prefix` that holds a manifest."""
    weight: float = Field(1.0, gt=0)
    """Times that every sample comes per epoch; of a fraction, another part of the samples each epoch."""


def _as_sources(value: Any) -> Any:
    """`PATH`, `[PATH, ...]` and `[{address: PATH, weight: 2}, ...]` all mean a list of sources."""
    items = value if isinstance(value, list | tuple) else [value]
    if not items:
        raise ValueError("names no dataset; write the folder or s3:// address of one")
    return tuple(_as_source(item) for item in items)


def _as_source(item: Any) -> Any:
    if isinstance(item, dict | DataSource):
        return item
    if not isinstance(item, str | Path) or not str(item):
        raise ValueError(f"{item!r} is no dataset; write PATH, or {{address: PATH, weight: 2}}")
    return {"address": str(item)}


def _as_written(sources: tuple[DataSource, ...]) -> Any:
    """The short form where it says everything."""
    if len(sources) == 1 and sources[0].weight == 1:
        return sources[0].address
    return [source.model_dump(mode="json") for source in sources]


DataSources = Annotated[
    tuple[DataSource, ...], BeforeValidator(_as_sources), PlainSerializer(_as_written, return_type=Any)
]


class ColourConfig(Config):
    """Random changes of colour, per view; 0 leaves a thing as it is (official code: none)."""

    brightness: float = Field(0.0, ge=0, le=1)
    """Brightness times a factor from [1 - b, 1 + b]."""
    contrast: float = Field(0.0, ge=0, le=1)
    """Distance from the mean grey times a factor from [1 - c, 1 + c]."""
    saturation: float = Field(0.0, ge=0, le=1)
    """Distance from each pixel's grey times a factor from [1 - s, 1 + s]."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Turn of the hue from [-h, h], in turns."""
    grey: float = Field(0.0, ge=0, le=1)
    """Share of views without colour."""


class ViewConfig(Config):
    """The two views of an image."""

    size: int = Field(256, ge=32, multiple_of=8)
    """Side of a view in pixels; the feature map's side is an eighth of it."""
    min_area: float = Field(0.0, ge=0, le=1)
    """Least share of the image's area that a crop covers (official code: 0)."""
    max_area: float = Field(1.0, gt=0, le=1)
    """Largest share of the image's area that a crop covers."""
    flip: float = Field(0.0, ge=0, le=1)
    """Share of views that are mirrored, left to right (official code: none)."""
    colour: ColourConfig = ColourConfig()
    frame_gap: int | None = Field(None, ge=1)
    """Take the second view from another frame of the video, at most so many frames of the dataset away;
    by default both views come from one image (as in the official code)."""
    cut: Literal["auto", "cpu", "device"] = "auto"
    """Where crops are cut and resized. auto: on the GPU when training there, else in the loader."""
    statistics: Literal["imagenet", "cifar10"] = "imagenet"
    """Mean and standard deviation that training views are normalised with (official code: cifar10)."""

    @model_validator(mode="after")
    def _check(self) -> "ViewConfig":
        if self.min_area > self.max_area:
            raise ValueError("min_area is larger than max_area")
        return self


class StreamConfig(Config):
    """How samples are put in order, read and held ready."""

    block: int = Field(16, ge=1)
    """Neighbouring samples of a shard that are read together."""
    window: int = Field(4, ge=1)
    """Blocks of one stream whose samples are mixed."""
    streams: int = Field(256, ge=1)
    """Places in the epoch that a batch is drawn from."""
    cache: str | None = None
    """Folder on a disk of the node that keeps what was read from S3; by default nothing is kept."""
    cache_gb: float = Field(50.0, gt=0)
    """Size that the cache may reach, in GB (10^9 bytes)."""
    buffer_mb: float | None = Field(None, gt=0)
    """Data from S3 that each loader process holds and reads ahead, in MB (10^6 bytes); by default what
    the order needs (streams of the process x window x block samples), up to 1,000."""
    fetch_threads: int = Field(8, ge=1)
    """Requests to S3 that each loader process has under way."""
    prefetch: int = Field(4, ge=1)
    """Batches that each loader process makes ahead."""
    max_bad: float = Field(0.001, ge=0)
    """Corrupt samples that one epoch may have before training ends: a share below 1 (of the epoch's
    samples, at least one), or a count."""


class LossConfig(Config):
    """The hybrid loss."""

    radius: float = Field(0.1, gt=0)
    """Positive pairs lie strictly closer than this, in diagonals of the larger bin."""
    static_weight: float = Field(1.0, ge=0)
    """Weight of the static term; 0 leaves the dynamic term alone."""
    dynamic_weight: float = Field(1.0, ge=0)
    """Weight of the dynamic term; 0 leaves the static term alone."""


class EngineConfig(Config):
    """How a step is computed: DeepSpeed, precision, memory."""

    zero_stage: Literal[0, 1] = 0
    """0: every rank holds the optimiser's state; 1: each rank holds its share."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16, fp16: compute under autocast; weights, optimiser and target stay fp32. fp16 scales the loss."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU per process where there are GPUs, else the CPU."""
    tf32: Literal["convolutions", "everything", "off"] = "convolutions"
    """Where fp32 products on GPUs may use TF32 (official code, by PyTorch's default: in convolutions)."""
    accumulate: int = Field(1, ge=1)
    """Parts that a rank's share of a batch is computed in, one after the other, to save memory; weights
    and EMA move once per batch. BatchNorm sees a part at a time."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of the whole gradient; a larger one is scaled down to it (official code: none)."""
    sync_batchnorm: bool = False
    """BatchNorm over all ranks' positions together (GPUs only); else each rank by its own."""
    channels_last: bool | None = None
    """Memory layout of weights in convolutions; by default on, which is faster on CPUs, too. Views and
    activations always have it. Under ZeRO 1 weights stay as they are."""
    compile: bool = False
    """torch.compile for trunk and heads: faster steps after some minutes of compiling; not together with
    `recompute`."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them: a quarter of the memory, a
    third more time, the same result."""
    peak_tflops: float | None = Field(None, gt=0)
    """The device's peak in TFLOP/s at this precision, for MFU; by default known by the device's name."""

    @model_validator(mode="after")
    def _check(self) -> "EngineConfig":
        if self.compile and self.recompute:
            raise ValueError(
                "engine.compile and engine.recompute cannot both be true: what is computed again is not "
                "compiled. compile plans memory by itself; set recompute where memory is too small"
            )
        return self


class ScheduleConfig(Config):
    """Learning rate over the run (official code: constant)."""

    warmup_steps: int = Field(0, ge=0)
    """Steps over which it rises linearly to its full value."""
    decay: Literal["constant", "cosine"] = "constant"
    """After warm-up: as it is, or along half a cosine to `final_share`."""
    final_share: float = Field(0.0, ge=0, le=1)
    """Share of the full value that the cosine ends at."""
    batch_scaling: Literal["none", "sqrt", "linear"] = "none"
    """How the full value follows from `learning_rate` where batch_size is not `reference_batch`."""
    reference_batch: int = Field(128, ge=1)
    """The batch size that `learning_rate` is meant for."""


class NonFiniteConfig(Config):
    """What becomes of a step whose loss or gradient is not finite. Under fp16 a gradient that overflows by
    the loss scale alone is no such step: the scale is halved, and training goes on."""

    policy: Literal["skip", "rollback", "stop"] = "skip"
    """skip: no weight moves in that step. rollback: back to the last checkpoint, and on with the batches
    after the bad one. stop: end the run. Weights that are not finite are never saved under any of them."""
    limit: int = Field(10, ge=1)
    """So many such steps in a row, or rollbacks in a run, end it."""


class CheckpointConfig(Config):
    """When and where to save, and how much to keep."""

    every: int = Field(500, ge=1)
    """Steps between checkpoints; the end always makes one."""
    keep: int = Field(3, ge=1)
    """Number of newest checkpoints that are kept."""
    keep_every: int | None = Field(None, ge=1)
    """Checkpoints at multiples of so many steps are kept, too. One that an alias points to always is."""
    address: str | None = None
    """Folder or `s3://bucket/prefix`; by default `checkpoints` in the output folder."""
    max_failures: int = Field(3, ge=1)
    """So many checkpoints in a row that cannot be written end the run."""


def _as_choice(value: Any) -> Any:
    """Recipes of older runs say true and false; YAML takes `none` for a text, `off` for false."""
    return {True: "last", False: "none"}.get(value, value) if isinstance(value, bool) else value


class TrackingConfig(Config):
    """MLflow."""

    uri: CleanUri | None = None
    """Tracking URI; by default MLFLOW_TRACKING_URI, else where the run of this output folder went so far,
    else `outputs/mlflow.db` below the folder that the command is started in."""
    experiment: str = "hvc"
    """Experiment that the run belongs to."""
    model: str = "hvc"
    """Registered model that every checkpoint becomes a version of."""
    upload_encoder: Annotated[Literal["last", "all", "none"], BeforeValidator(_as_choice)] = "last"
    """Which checkpoints' `encoder.safetensors` becomes an artifact of the run, too."""
    pictures: int = Field(10, ge=0)
    """Times over the run that pictures of features, weights and curves are made, beside the end."""
    parent: str | None = None
    """Id of a run at MLflow that this one is shown below; by default it stands for itself."""


_HOW_IT_IS_COMPUTED = {"zero_stage", "device", "channels_last", "compile", "recompute", "peak_tflops"}


class TrainConfig(Config):
    """Everything that decides a training run."""

    name: str = Field("hvc", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run, and of its folder below `outputs/`."""
    data: DataSources
    """Sharded datasets: a folder or `s3://bucket/prefix` that holds a manifest, or a list of such, or of
    `{address: ..., weight: w}`; weight w: every sample comes w times per epoch."""
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
    """Adam's full learning rate; `schedule` says how it changes."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of convolutions (official code: none)."""
    shuffle: bool = True
    """A new order each epoch; false: the manifest's order, every epoch alike (official image run)."""
    remainder: Literal["short", "drop", "wrap"] = "short"
    """What an epoch does with samples that fill no batch: a last smaller one, none, or one that is
    filled up with samples of the epoch's beginning."""
    frames_per_video: int | None = Field(None, ge=1)
    """At most so many random frames of each video per epoch (official video run: 80)."""
    subset: int | None = Field(None, ge=1)
    """Train on so many samples only, the same in every epoch; more than the data has are refused."""
    ema_momentum: float = Field(0.99, ge=0, le=1)
    """EMA momentum at step 0; rises to 1 along a cosine."""
    dummy_forward: bool = False
    """Push one black image through the new online trunk, as the official code does to learn its width: its
    BatchNorm buffers then start at mean 0, variance 0.9, count 1. No weight depends on it."""
    ema_restart: bool = False
    """After an interruption the schedule of EMA momentum starts anew (official code: step not saved)."""
    workers: int = Field(2, ge=0)
    """Loader processes per training process; 0 loads in the training process itself."""
    log_every: int = Field(10, ge=1)
    """Steps between two metric records."""
    watchdog_seconds: float = Field(900.0, gt=0)
    """Without a finished step for so long, every rank logs its stacks and leaves, to be started again."""
    stream: StreamConfig = StreamConfig()
    views: ViewConfig = ViewConfig()
    loss: LossConfig = LossConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    engine: EngineConfig = EngineConfig()
    non_finite: NonFiniteConfig = NonFiniteConfig()
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

    @property
    def checkpoints(self) -> str:
        """Where checkpoints go: a folder or an `s3://` address."""
        return self.checkpoint.address or str(self.folder / "checkpoints")

    def method(self) -> dict[str, Any]:
        """What decides the result: all but places, tracking, logging, and how the work is spread.

        The data is named by its digest, which the checkpoint holds beside this.
        """
        places = ("name", "data", "output", "tracking", "checkpoint", "workers", "log_every")
        spread: dict[str, Any] = dict.fromkeys((*places, "watchdog_seconds", "non_finite"), True)
        spread["engine"] = _HOW_IT_IS_COMPUTED
        spread["views"] = {"cut"}
        spread["stream"] = set(StreamConfig.model_fields) - {"block", "window", "streams"}
        return self.model_dump(mode="json", exclude=spread)

    def method_digest(self) -> str:
        """sha256 of `method` (hex)."""
        return hashlib.sha256(json.dumps(self.method(), sort_keys=True).encode()).hexdigest()
