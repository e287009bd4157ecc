"""How far a run has come, as a number that whoever starts it again can compare."""

from hvc.base.storage import open_store
from hvc.pretrain.checkpoints.marker import COMPLETE
from hvc.pretrain.checkpoints.retention import survey
from hvc.pretrain.recipe import TrainConfig


def advance(config: TrainConfig) -> int:
    """Step of the newest complete checkpoint, 0 without one; StorageError where it cannot be looked for."""
    found = survey(open_store(config.checkpoints))
    return max((step for step, files in found.items() if COMPLETE in files), default=0)
