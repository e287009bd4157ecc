"""How far a run has come, as a number that whoever starts it again can compare."""

from hvc.base.storage import open_store
from hvc.pretrain.marker import COMPLETE
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.retention import survey


def advance(config: TrainConfig) -> int:
    """Step of the newest complete checkpoint, 0 without one; StorageError where it cannot be looked for."""
    found = survey(open_store(config.checkpoints))
    return max((step for step, files in found.items() if COMPLETE in files), default=0)
