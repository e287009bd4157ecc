"""The stages that can be submitted, and where their code is; nothing of it is imported before use."""

import difflib
import importlib
import logging
from dataclasses import dataclass
from typing import Any

from hvc.base.config import Config
from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Stage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StagePaths:
    """A stage by name: import paths (`module:attribute`) of its `run` and of its config class."""

    name: str
    run: str
    config: str
    parallel: bool = False
    """Whether the tasks of a job share its work; otherwise each of them would do all of it."""
    progress: str | None = None
    """Import path of what says how far the work of a config is, a number that grows; None: nothing does."""


STAGES = {
    stage.name: stage
    for stage in (
        StagePaths(
            "shard",
            "hvc.data_prep.shard:run",
            "hvc.data_prep.shard:ShardConfig",
            progress="hvc.data_prep.advance:advance",
        ),
        StagePaths(
            "train",
            "hvc.pretrain.train:run",
            "hvc.pretrain.train:TrainConfig",
            parallel=True,
            progress="hvc.pretrain.advance:advance",
        ),
        StagePaths(
            "evaluate",
            "hvc.evaluation.evaluate:run",
            "hvc.evaluation.evaluate_config:EvaluateConfig",
            progress="hvc.evaluation.advance:advance",
        ),
    )
}


def find(name: str) -> StagePaths:
    """The stage of that name; UsageError with the nearest one."""
    if name not in STAGES:
        close = difflib.get_close_matches(name, STAGES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(STAGES)}"
        raise UsageError(f"no stage {name!r}; {hint}")
    return STAGES[name]


def run_of(stage: StagePaths) -> Stage[Any]:
    """The stage's function, imported now."""
    run: Stage[Any] = _load(stage.run)
    return run


def config_of(stage: StagePaths) -> type[Config]:
    """The stage's config class, imported now."""
    config: type[Config] = _load(stage.config)
    return config


def progress_of(stage: StagePaths, config: dict[str, Any]) -> float | None:
    """How far the work of a config is; None where that is not known."""
    if stage.progress is None:
        return None
    try:
        return float(_load(stage.progress)(config_of(stage).parse(config, where=f"config of {stage.name}")))
    except Exception as error:  # noqa: BLE001 (storage raises anything; a job must not end over this)
        _log.warning("how far %s is cannot be found out: %s", stage.name, error)
        return None


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise HvcError(
            f"cannot load {path}: {error}; is the same version of hvc installed where this runs?"
        ) from error
