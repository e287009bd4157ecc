"""Which checkpoints stay, and how the others go.

COMPLETE is deleted first: a kill in the middle leaves an unfinished checkpoint, never a broken one.
"""

import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from hvc.base.storage import open_store
from hvc.base.store import StorageError, Store
from hvc.pretrain.checkpoints.marker import COMPLETE, DamagedError, parse_marker, step_name, step_of

SCRATCH = ".hvc-checkpoint-"
"""Beginning of the names of folders in which files for a bucket are made."""
_log = logging.getLogger(__name__)

Survey = dict[int, dict[str, int]]
"""Step -> the files in its folder and their sizes in bytes."""


def expendable(
    steps: Collection[int],
    whole: Collection[int],
    newest: int,
    *,
    keep: int,
    keep_every: int | None,
    pinned: Collection[int],
) -> list[int]:
    """Steps whose checkpoints may go, oldest first.

    Args:
        steps: All that are there, damaged ones too.
        whole: Those that are not known to be damaged; only they count for `keep`.
        newest: The one just written. It stays, and so does every later one: training went back to
            before them, and what is wrong with them is not decided here.
        keep: So many of the newest whole ones stay, at least 1.
        keep_every: Multiples of it stay.
        pinned: These stay.
    """
    counted = sorted({newest, *(step for step in whole if step <= newest)})
    if len(counted) < keep:
        return []
    oldest = counted[-keep]
    return sorted(
        step
        for step in steps
        if step < oldest and step not in pinned and not (keep_every and step % keep_every == 0)
    )


def prune(
    store: Store, newest: int, *, keep: int, keep_every: int | None, pinned: Collection[int]
) -> list[int]:
    """Delete what is expendable and what is unfinished; gives the steps that went."""
    found = survey(store)
    complete = [step for step, files in found.items() if COMPLETE in files]
    whole: list[int] = []
    for step in sorted((step for step in complete if step < newest), reverse=True):
        if len(whole) + 1 >= keep:
            break
        if is_whole(store, step, found[step]):
            whole.append(step)
    gone = expendable(complete, whole, newest, keep=keep, keep_every=keep_every, pinned=pinned)
    for step in gone + [step for step in found if step not in complete and step != newest]:
        remove(store, step)
    return gone


def is_whole(store: Store, step: int, sizes: dict[str, int]) -> bool:
    """Whether COMPLETE can be read and all files have their sizes; hashes would cost reading them."""
    where = f"{step_name(step)}/{COMPLETE}"
    try:
        marker = parse_marker(store.read(where), store.where(where))
    except DamagedError:
        return False
    return marker.step == step and all(sizes.get(k) == note.bytes for k, note in marker.files.items())


def survey(store: Store) -> Survey:
    """All checkpoint folders, finished or not; other folders and files are not looked at."""
    found: Survey = {}
    for name, size in store.entries("step-"):
        folder, _, file = name.partition("/")
        step = step_of(folder)
        if step is not None and file:
            found.setdefault(step, {})[file] = size
    root = local_folder(store)
    if root is not None and root.is_dir():  # a kill may leave a folder with nothing in it
        for path in root.glob("step-*/"):
            step = step_of(path.name)
            if step is not None and not path.is_symlink():
                found.setdefault(step, {})
    return found


def clear_unfinished(address: str | Path) -> None:
    """Remove what killed attempts left half-written. Only for who holds the place alone."""
    store = open_store(address)
    for step, files in survey(store).items():
        if COMPLETE not in files:
            _log.info("removing the unfinished checkpoint %s", store.where(step_name(step)))
            remove(store, step)
    store.abort_uploads("step-")
    root = local_folder(store)
    if root is not None:
        for path in root.glob(".step-*.tmp"):  # of version 1
            _remove_folder(path)


def clear_scratch(folder: Path) -> None:
    """Remove what a killed attempt had not uploaded yet. Only for who holds the folder alone."""
    for path in folder.glob(f"{SCRATCH}*"):
        _remove_folder(path)


def remove(store: Store, step: int) -> None:
    """Delete a step's folder, complete or not; no error when it is not there."""
    name, root = step_name(step), local_folder(store)
    if root is None:
        for file in sorted(store.names(f"{name}/"), key=lambda file: file != f"{name}/{COMPLETE}"):
            store.delete(file)
        return
    if (root / name).is_dir():
        if (root / name / COMPLETE).is_file():
            store.delete(f"{name}/{COMPLETE}")
            sync(root / name)
        _remove_folder(root / name)


def local_folder(store: Store) -> Path | None:
    """The folder of a store on a file system; None for a bucket."""
    return None if store.address.startswith("s3://") else Path(store.address)


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise StorageError(f"cannot flush {path} to the disk: {error.strerror}") from None


def _remove_folder(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f"cannot delete {path}: {error.strerror}; check the permissions") from None
