"""What a stage's config says of the world outside: what it reads, where it writes, who is told."""

from dataclasses import dataclass, field
from pathlib import Path

from hvc.base.config import Config


@dataclass(frozen=True)
class Places:
    """Folders and addresses of one stage, as the job will use them."""

    name: str | None = None
    """Of the run or dataset."""
    inputs: list[str] = field(default_factory=list)
    """Folders, files and `s3://` addresses that it reads."""
    datasets: list[str] = field(default_factory=list)
    """Those that have to hold a manifest."""
    outputs: list[str] = field(default_factory=list)
    """Folders and `s3://` addresses that it writes; the first is the one to look for its results in."""
    sole: bool = False
    """Whether one process after another writes the outputs, never two at once."""
    tracking_uri: str | None = None
    """MLflow, where the config names one."""
    tracked: bool = False
    """Whether it speaks with MLflow at all."""
    workers: int = 0
    """Processes that each of its processes starts."""


def places_of(stage: str, config: Config) -> Places:
    """The places of a stage's config; of a stage that nothing is known of, none but its `folder`."""
    known = {"train": _train, "shard": _shard, "evaluate": _evaluate}
    return known.get(stage, _other)(config)


def _train(config: Config) -> Places:
    from hvc.pretrain.recipe import TrainConfig

    if not isinstance(config, TrainConfig):
        return _other(config)
    return Places(
        name=config.name,
        datasets=[source.address for source in config.data],
        outputs=[str(config.folder), *([config.checkpoint.address] if config.checkpoint.address else [])],
        sole=True,
        tracking_uri=config.tracking.uri,
        tracked=True,
        workers=config.workers,
    )


def _shard(config: Config) -> Places:
    from hvc.data_prep.shard_config import ShardConfig

    if not isinstance(config, ShardConfig):
        return _other(config)
    return Places(
        name=config.dataset_name,
        inputs=[entry.address for entry in config.inputs],
        outputs=[config.output],
        sole=True,
    )


def _evaluate(config: Config) -> Places:
    from hvc.evaluation.evaluate_config import EvaluateConfig

    if not isinstance(config, EvaluateConfig):
        return _other(config)
    return Places(
        name=config.benchmark,
        inputs=[config.data],
        outputs=[config.output or str(Path("outputs/eval").absolute())],
        tracking_uri=config.tracking_uri,
        tracked=True,
    )


def _other(config: Config) -> Places:
    folder = config.resolved().get("folder")
    return Places(outputs=[str(folder)] if folder else [])
