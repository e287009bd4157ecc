"""`job.json`: what a submitted job is to run, written once and read by every rank of every attempt."""

import json
from pathlib import Path
from typing import Any, Self

from hvc.base.config import Config
from hvc.base.errors import HvcError
from hvc.base.stage import STAGE_VERSION
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.stages import StagePaths


class JobFile(Config):
    """A stage and its resolved config, with what the runner needs to know of the cluster."""

    stage_version: int = STAGE_VERSION
    """Version of the stage contract that it was written for."""
    stage: StagePaths
    """The stage's name and import paths."""
    config: dict[str, Any]
    """The stage's config, all values resolved."""
    cluster: str
    """Name of the cluster's file, for the records."""
    max_requeues: int | None
    """Requeues in a row without progress before the job gives up; null is without end."""
    slow_node_factor: float = 5.0
    """A node so many times slower than the median is left out; 0: none is."""
    snapshot: str | None = None
    """Folder of the code that the job runs from; null is whatever is installed."""

    @classmethod
    def of(cls, stage: StagePaths, config: dict[str, Any], cluster: ClusterConfig, snapshot: Path) -> Self:
        """What a submission runs there, from its snapshot; `config` with all values resolved."""
        return cls(
            stage=stage,
            config=config,
            cluster=cluster.name,
            max_requeues=cluster.max_requeues,
            slow_node_factor=cluster.slow_node_factor,
            snapshot=str(snapshot),
        )

    def write(self, path: Path) -> None:
        """Write as JSON; it holds no secrets, because configs hold none."""
        path.write_text(json.dumps(self.resolved(), indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> JobFile:
    """Read a job file; HvcError when it is not there or speaks another version of the contract."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HvcError(f"cannot read {path}: {error}; do all nodes share this folder?") from None
    version = data.get("stage_version") if isinstance(data, dict) else None
    if version != STAGE_VERSION:
        raise HvcError(
            f"{path} was written for version {version} of the stage contract, "
            f"this hvc has {STAGE_VERSION}; submit the job again"
        )
    return JobFile.parse(data, where=str(path))
