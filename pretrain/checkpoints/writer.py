"""One checkpoint into a folder or a bucket: the tensors' files, state.json, and COMPLETE last."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hvc.base.storage import StorageError, Store, open_store
from hvc.pretrain.checkpoints.checkpoint import Checkpoint
from hvc.pretrain.checkpoints.files import Files
from hvc.pretrain.checkpoints.marker import (
    BUFFERS,
    CHECKPOINT_VERSION,
    COMPLETE,
    ENCODER,
    MODEL,
    OPTIMIZER,
    STATE,
    Marker,
    step_name,
)
from hvc.pretrain.checkpoints.retention import SCRATCH, local_folder, remove, sync
from hvc.pretrain.weights.encoder_file import EncoderMetadata, header
from hvc.pretrain.weights.tensor_file import FileNote, note_of, write_tensors


@dataclass(frozen=True)
class Snapshot:
    """All of a run at the end of a step, on the CPU; nobody writes to these tensors any more."""

    step: int
    model: dict[str, Tensor]
    """Parameters of the online and the target network."""
    optimizer: dict[str, Tensor]
    buffers: list[dict[str, Tensor]]
    """Of each rank: BatchNorm's buffers and, as `rng/NAME`, its generators."""
    encoder: dict[str, Tensor] | Callable[[], dict[str, Tensor]]
    """The trunk's state dict, or what makes it (called in the writing thread)."""
    metadata: EncoderMetadata
    state: dict[str, Any]
    """What goes into state.json."""


def write_checkpoint(
    store: Store,
    snapshot: Snapshot,
    *,
    check: Callable[[], None] = lambda: None,
    scratch: Path | None = None,
) -> Checkpoint:
    """Write one checkpoint; StorageError names the file that could not be written.

    One of the same step goes first: training only reaches a step again from an older checkpoint, so
    a good one is there meanwhile.

    Args:
        store: A run's checkpoints.
        snapshot: What to write.
        check: Raises when this process may not write here any more; asked before anything is deleted
            or counts.
        scratch: Where the files of a checkpoint in a bucket are made, each deleted once it is there;
            None: in the system's temporary folder.
    """
    name, state = step_name(snapshot.step), json.dumps(snapshot.state, indent=1).encode()
    check()
    remove(store, snapshot.step)
    notes: dict[str, FileNote] = {}
    with _place_for_files(store, name, scratch) as folder:
        for file, tensors, metadata in _tensor_files(snapshot):
            path = folder / f".{file}.tmp"
            notes[file] = write_tensors(path, tensors, metadata)
            check()
            store.upload(f"{name}/{file}", path, notes[file].sha256)
    store.write(f"{name}/{STATE}", state)
    notes[STATE] = note_of(state)
    marker = Marker(version=CHECKPOINT_VERSION, step=snapshot.step, files=notes)
    root = local_folder(store)
    if root is not None:  # a power cut must not leave COMPLETE without what it speaks of
        sync(root / name)
    data = marker.to_bytes()
    check()
    store.write(f"{name}/{COMPLETE}", data)
    if root is not None:
        sync(root / name)
        sync(root)
    place = open_store(f"{store.address}/{name}")
    return Checkpoint(place.address, snapshot.step, note_of(data).sha256, marker, Files(place, marker))


def _tensor_files(snapshot: Snapshot) -> Iterator[tuple[str, dict[str, Tensor], dict[str, str]]]:
    yield MODEL, snapshot.model, {}
    yield OPTIMIZER, snapshot.optimizer, {}
    ranks = enumerate(snapshot.buffers)
    yield BUFFERS, {f"rank-{n:05d}/{key}": value for n, own in ranks for key, value in own.items()}, {}
    trunk = snapshot.encoder() if callable(snapshot.encoder) else snapshot.encoder
    yield ENCODER, trunk, header(snapshot.metadata)


@contextmanager
def _place_for_files(store: Store, name: str, scratch: Path | None) -> Iterator[Path]:
    """Where files are made: the checkpoint's own folder, so that no disk is crossed, or a temporary one."""
    root = local_folder(store)
    if root is None:
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=scratch) as folder:
            yield Path(folder)
        return
    try:
        (root / name).mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"cannot make {root / name}: {error.strerror}") from None
    yield root / name
