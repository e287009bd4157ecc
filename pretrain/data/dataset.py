"""One or several sharded datasets under one numbering: what there is to train on, and where it lies.

Sample numbers run through the shards of the first dataset, then through those of the next. Only the
manifests are read here; indexes and video runs are read when something first needs them.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import Store, open_store
from hvc.data_prep.groups import read_groups
from hvc.data_prep.manifest import MANIFEST_NAME, Manifest, Shard, read_manifest
from hvc.pretrain.data.order import RunPlan, Shuffle
from hvc.pretrain.data.selection import Selection
from hvc.pretrain.recipe import DataSource, TrainConfig


class SourceData(NamedTuple):
    """One dataset of a recipe."""

    manifest: Manifest
    store: Store
    weight: float
    """Times that every sample comes per epoch."""


class TrainingData:
    """All samples that a recipe trains on. Picklable, so that loader processes can have it."""

    def __init__(self, sources: list[SourceData]) -> None:
        self.sources = sources
        self.shards: list[Shard] = [shard for source in sources for shard in source.manifest.shards]
        self.source_of: list[int] = [
            number for number, source in enumerate(sources) for _ in source.manifest.shards
        ]
        """Which dataset each shard belongs to [shards]."""
        self.shard_sizes: NDArray[np.int64] = np.array([shard.samples for shard in self.shards], np.int64)
        """Samples per shard [shards]."""
        self.starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(self.shard_sizes)])
        """First sample of each shard, and the number of all samples [shards + 1]."""

    @property
    def samples(self) -> int:
        """Number of samples, each once."""
        return int(self.starts[-1])

    @property
    def name(self) -> str:
        """Names of the datasets."""
        return "+".join(source.manifest.name for source in self.sources)

    @property
    def address(self) -> str:
        """Addresses of the datasets, for messages."""
        return ", ".join(source.store.address for source in self.sources)

    @cached_property
    def digest(self) -> str:
        """What names the data in checkpoints and runs: of one dataset its own digest (hex sha256)."""
        if len(self.sources) == 1 and self.sources[0].weight == 1:
            return self.sources[0].manifest.digest
        parts = [[source.manifest.digest, source.weight] for source in self.sources]
        return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()

    def store_of(self, shard: int) -> Store:
        """Where a shard lies."""
        return self.sources[self.source_of[shard]].store

    def where(self, shard: int) -> str:
        """A shard's full address."""
        return self.store_of(shard).where(self.shards[shard].path)

    @cached_property
    def videos(self) -> NDArray[np.int64]:
        """First sample and number of samples of every video, int64 [videos, 2], ascending.

        Single images are in none. Read from the datasets when first asked for; HvcError when a file is
        missing or was altered.
        """
        found: list[tuple[int, int]] = []
        first = 0
        for source in self.sources:
            found += [(first + start, count) for start, count in _video_runs(source)]
            first += source.manifest.samples
        return np.array(found, np.int64).reshape(-1, 2)

    def video_of(self, sample: int) -> tuple[int, int]:
        """First sample and end of the video that a sample is a frame of; itself alone if it is none."""
        row = int(np.searchsorted(self.videos[:, 0], sample, side="right")) - 1
        if row >= 0 and sample < self.videos[row].sum():
            return int(self.videos[row, 0]), int(self.videos[row].sum())
        return sample, sample + 1


def plan_run(config: TrainConfig, data: TrainingData) -> RunPlan:
    """All that decides the order of a run: what is on disk, and the recipe."""
    limit = config.frames_per_video
    videos = {} if limit is None else {"runs": data.videos}
    selection = Selection(
        tuple(source.manifest.samples for source in data.sources),
        tuple(source.weight for source in data.sources),
        config.subset,
        limit,
        seed=config.seed,
        **videos,
    )
    mixed = Shuffle(config.stream.block, config.stream.window, config.stream.streams)
    return RunPlan(
        tuple(data.shard_sizes.tolist()),
        config.batch_size,
        config.seed,
        mixed if config.shuffle else None,
        config.remainder,
        selection,
    )


def load_data(config: TrainConfig) -> TrainingData:
    """The manifests of a recipe's datasets; HvcError when one is missing, empty or has no videos needed.

    A folder that holds no dataset is a UsageError: the same again cannot help.
    """
    data = TrainingData([_open(source) for source in config.data])
    if config.views.frame_gap and not len(data.videos):
        raise HvcError(
            f"{data.address}: views.frame_gap asks for two frames of one video, but the data holds single "
            "images only; shard videos, or leave frame_gap out"
        )
    return data


def _open(source: DataSource) -> SourceData:
    store = open_store(source.address)
    try:
        manifest = read_manifest(store)
    except HvcError as error:
        if not source.address.startswith("s3://") and _is_absent(Path(store.address, MANIFEST_NAME)):
            raise UsageError(str(error)) from None
        raise
    if manifest.samples == 0:
        raise HvcError(f"{source.address}: the dataset has no samples")
    return SourceData(manifest, store, source.weight)


def _is_absent(path: Path) -> bool:
    """Whether the file system says that there is no such file; any other error may pass."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _video_runs(source: SourceData) -> Iterator[tuple[int, int]]:
    """(first sample, number of samples) of each video of one dataset."""
    end = 0
    for video, count in read_groups(source.store, source.manifest):
        if video is not None:
            yield end, count
        end += count
