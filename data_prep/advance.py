"""How far sharding has come, as a number that whoever starts it again can compare."""

from hvc.base.storage import open_store
from hvc.data_prep.progress import count_finished
from hvc.data_prep.shard_config import ShardConfig


def advance(config: ShardConfig) -> int:
    """Number of finished shards; StorageError where they cannot be counted."""
    return count_finished(open_store(config.output))
