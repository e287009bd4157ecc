"""What a pipeline is: stages with their configs, from one YAML file; see `configs/pipeline.yaml`."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from hvc.base.addresses import CleanUri
from hvc.base.config import Config
from hvc.slurm.sweep import Values, expand


class _OnCluster(Config):
    cluster: str | None = None
    """Cluster file of this stage; by default the one of the command."""
    output: str | None = None
    """Folder, of `shard` also `s3://bucket/prefix`, below which its outputs go, each in a folder named by
    its digest; by default one in the pipeline's folder."""


class ShardStage(_OnCluster):
    """Sharding, first."""

    parts: int = Field(1, ge=1)
    """Tasks of a job array that share the work."""
    config: dict[str, Any]
    """As `hvc shard` has it: `inputs: [{source: folder, address: photos}]`, `min_shards`, ..."""


class TrainStage(_OnCluster):
    """Training; its data are what `shard` made, where there is that stage."""

    recipe: str | None = None
    """A recipe file."""
    config: Values = Field(default_factory=dict)
    """Settings over those of the recipe; dots reach into sections."""


class EvaluateStage(_OnCluster):
    """Evaluation on one benchmark, of the newest checkpoint of every training run of the pipeline."""

    parts: int = Field(1, ge=1)
    """Tasks of a job array that share the sequences; members of a sweep are one task each."""
    config: dict[str, Any]
    """As `hvc evaluate` has it: `benchmark`, `data`, `preset`, `protocol`, ... A `checkpoint`, e.g.
    baseline:untrained, is evaluated instead of what was trained."""


class Sweep(Config):
    """Training runs that differ in some settings."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Every combination of these: `learning_rate: [0.001, 0.01]`."""
    members: list[Values] = Field(default_factory=list)
    """Or one by one, after those of the grid: `- {learning_rate: 0.001, steps: 100}`."""

    @property
    def all_members(self) -> list[Values]:
        """Settings of each member."""
        return [*expand(self.grid), *self.members]


class PipelineConfig(Config):
    """Stages that follow each other: shard -> train (one run, or a sweep) -> evaluate."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the pipeline, of its folder below `pipelines/` and of its run at MLflow."""
    folder: Annotated[str, AfterValidator(lambda text: text and str(Path(text).absolute()))] = ""
    """Folder of its state and, unless said otherwise, outputs, on storage that all nodes share; by default
    `pipelines/NAME`."""
    tracking_uri: CleanUri | None = None
    """MLflow; by default the recipe's, else MLFLOW_TRACKING_URI, else outputs/mlflow.db here."""
    shard: ShardStage | None = None
    train: TrainStage | None = None
    sweep: Sweep | None = None
    evaluate: list[EvaluateStage] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> "PipelineConfig":
        if self.shard is None and self.train is None and not self.evaluate:
            raise ValueError("there is no stage; write shard:, train: or evaluate:")
        if self.sweep is not None and self.train is None:
            raise ValueError("sweep: there is nothing to vary without train:")
        if self.sweep is not None and not self.sweep.all_members:
            raise ValueError("sweep: has no members; write grid: or members:")
        without = [n for n, stage in enumerate(self.evaluate) if "checkpoint" not in stage.config]
        if without and self.train is None:
            raise ValueError(f"evaluate.{without[0]}.config: give a checkpoint, or a stage train:")
        return self

    @property
    def place(self) -> Path:
        """The pipeline's folder."""
        return Path(self.folder or Path("pipelines") / self.name).absolute()
