"""What an unfinished sharding run leaves for the next one, below `.progress/` of the output.

`plan.json` names the plan that the run follows, `SHARD.json` is written once that shard and its index
are in place, `hashes-N` holds content hashes. All of it vanishes when the manifest is there. One run at
a time writes to an output, or several that make different parts of the same plan.
"""

import hashlib
import json
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from hvc.base.errors import HvcError
from hvc.base.storage import FolderStore, MissingError, Store, sha256_file
from hvc.data_prep.exclusion import Exclusion, FolderExclusion, StoreExclusion
from hvc.data_prep.lock import NO_TURN, BusyError, Turn
from hvc.data_prep.manifest import DUPLICATES_NAME, GROUPS_NAME, MANIFEST_NAME, REJECTS_NAME
from hvc.data_prep.writer import ShardRecord

PART_PATIENCE_SECONDS = 60.0
"""So long a part waits for another one that prepares the output for all."""

SHARD_FILE = re.compile(r"shard-\d{6,}\.(tar|idx)")
"""Names of the files that sharding writes (shards and their indexes)."""

_FOLDER = ".progress"
_PLAN = f"{_FOLDER}/plan.json"
_CLAIM = f"{_FOLDER}/claim"
_LISTS = (REJECTS_NAME, DUPLICATES_NAME, GROUPS_NAME)
_RECORD = re.compile(rf"{re.escape(_FOLDER)}/(shard-\d{{6,}})\.json")
_THREADS = 16
_LAST_WORKER_SECONDS = 5.0


def count_finished(store: Store) -> int:
    """How many shards an unfinished run has noted as finished."""
    return sum(_RECORD.fullmatch(name) is not None for name in store.names(f"{_FOLDER}/shard-"))


class Progress:
    """The finished shards of one plan in one store, for the whole of it or for one part."""

    def __init__(self, store: Store, plan: str, part: int | None = None, turn: Turn = NO_TURN) -> None:
        """By its `turn` an attempt takes over from earlier ones that hang where nobody reaches them."""
        self._store, self._plan, self._part = store, plan, part
        self._who = "whole" if part is None else f"part-{part}"
        self._local = Path(store.address) if isinstance(store, FolderStore) else None
        self._exclusion: Exclusion
        if self._local:
            self._exclusion = FolderExclusion(self._local / _FOLDER, store.address, turn)
            self._work_parent, self._work_prefix = self._local / _FOLDER, "work-"
        else:
            self._exclusion = StoreExclusion(store, _CLAIM, turn)
            output = hashlib.sha256(store.address.encode()).hexdigest()[:16]
            self._work_parent = Path(tempfile.gettempdir())
            self._work_prefix = f"hvc-shard-{output}.{os.getuid()}-"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While inside, no other run writes what this one writes; BusyError when one does already.

        A part shares the output with other parts of the same plan; the first to come prepares it.
        """
        try:
            with self._exclusion.whole() if self._part is None else self._one_part(self._part):
                if self._part is None:
                    self._begin()
                yield
        finally:
            if self._local:
                with suppress(OSError):  # not empty: the next run goes on from what is in it
                    (self._local / _FOLDER).rmdir()

    def is_clean(self) -> bool:
        """Whether a finished dataset has nothing left beside it that `close` would remove."""
        if self._local:
            return not (self._local / _FOLDER).exists()
        return next(self._store.names(f"{_FOLDER}/"), None) is None

    def finished(self, wanted: frozenset[str]) -> dict[str, ShardRecord]:
        """Records of the shards, among those `wanted` by name, that are in place and undamaged."""
        found = (_RECORD.fullmatch(name) for name in self._store.names(f"{_FOLDER}/shard-"))
        names = [match[1] for match in found if match and match[1] in wanted]
        with ThreadPoolExecutor(_THREADS) as threads:
            records = list(threads.map(self._finished, names))
        return {record.name: record for record in records if record is not None}

    def deliver(self, record: ShardRecord, work: Path) -> None:
        """Bring a shard that lies in `work` to its place and note it; safe to repeat at any point.

        HvcError when another run took the output over: that one's shards may have the same names.
        """
        self._exclusion.check()
        if record.shard is not None:
            index = record.shard.index
            for name, sha256 in ((record.shard.path, record.shard.sha256), (index.path, index.sha256)):
                self._store.upload(name, work / name, sha256)
        self._store.write(f"{_FOLDER}/{record.name}.json", record.model_dump_json().encode())

    def still_ours(self) -> None:
        """HvcError when another run took the output over meanwhile."""
        self._exclusion.check()
        if self._found_plan() != self._plan:
            raise HvcError(f"output {self._store.address}: another run began anew there; this one ends")

    def kept_hashes(self, chunk: int) -> bytes | None:
        """What `keep_hashes` stored under this number, in this run or an earlier one."""
        try:
            return self._store.read(f"{_FOLDER}/hashes-{chunk:06d}")
        except MissingError:
            return None

    def keep_hashes(self, chunk: int, data: bytes) -> None:
        """Store a chunk of content hashes for the next run and for other parts."""
        self._store.write(f"{_FOLDER}/hashes-{chunk:06d}", data)

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A local folder for shards being written; inside the output, if that is a folder."""
        prefix = f"{self._work_prefix}{self._who}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=self._work_parent) as folder:
            yield Path(folder)

    def close(self) -> None:
        """Remove all traces of the run, except what it made; the plan's name goes last."""
        self._store.abort_uploads()
        if self._local is None:
            self._delete([name for name in self._store.names(f"{_FOLDER}/") if not name.startswith(_CLAIM)])
            return
        for name in (MANIFEST_NAME, *_LISTS):
            for leftover in self._local.glob(f".{name}.*.tmp"):  # of a write that was killed
                leftover.unlink(missing_ok=True)
        kept = {"lock", Path(_PLAN).name}  # the lock is ours until `alone` ends
        for path in list((self._local / _FOLDER).glob("*")):
            if path.is_dir():
                _remove(path)
            elif path.name not in kept:
                path.unlink()
        self._store.delete(_PLAN)

    @contextmanager
    def _one_part(self, part: int) -> Iterator[None]:
        """Hold our part of an output that is prepared for our plan."""
        deadline = time.monotonic() + PART_PATIENCE_SECONDS
        with ExitStack() as held:
            while True:
                try:
                    if self._found_plan() != self._plan:
                        with self._exclusion.whole():
                            self._begin()
                    held.enter_context(self._exclusion.part(part))
                except BusyError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(random.uniform(0.2, 1.0))  # noqa: S311 (so that two do not keep step)
                    continue
                if self._found_plan() == self._plan or self._store.exists(MANIFEST_NAME):
                    break
                held.pop_all().close()  # a run with another plan came in between
            self._remove_work_folders(f"{self._who}-")
            yield

    def _begin(self) -> None:
        """Take up this plan's earlier work, or remove what a different unfinished plan left.

        Raises HvcError when the output holds shards of unknown origin.
        """
        self._remove_work_folders()
        self._store.abort_uploads()
        found = self._found_plan()
        if found == self._plan or self._store.exists(MANIFEST_NAME):
            return
        surplus = [name for name in self._store.names("shard-") if SHARD_FILE.fullmatch(name)]
        if found is None and surplus:
            raise HvcError(
                f"{self._store.where(surplus[0])} is already there, but no record of how it was made; "
                "choose an empty output"
            )
        if found is not None:
            self._delete([*surplus, *_LISTS])
            self.close()
        self._store.write(_PLAN, json.dumps({"plan": self._plan}).encode())

    def _delete(self, names: list[str]) -> None:
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(self._store.delete, [name for name in names if name != _PLAN]))
        if _PLAN in names:
            self._store.delete(_PLAN)

    def _found_plan(self) -> str | None:
        try:
            return str(json.loads(self._store.read(_PLAN))["plan"])
        except MissingError:
            return None

    def _finished(self, name: str) -> ShardRecord | None:
        try:
            record = ShardRecord.model_validate_json(self._store.read(f"{_FOLDER}/{name}.json"))
            return record if record.shard is None or self._in_place(record) else None
        except (MissingError, ValidationError):
            return None

    def _in_place(self, record: ShardRecord) -> bool:
        assert record.shard is not None
        shard, index = record.shard, record.shard.index
        if self._local is None:  # what was noted when it was sent; reading it all back would cost more
            tar = self._store.stored(shard.path)
            return (
                tar.size == shard.bytes
                and tar.sha256 == shard.sha256
                and self._store.stored(index.path).sha256 == index.sha256
            )
        if self._store.size(shard.path) != shard.bytes or not self._store.exists(index.path):
            return False
        return (
            sha256_file(self._local / shard.path) == shard.sha256
            and sha256_file(self._local / index.path) == index.sha256
        )

    def _remove_work_folders(self, who: str = "") -> None:
        """Of earlier runs that were killed on this machine; `who` are not working now."""
        for folder in self._work_parent.glob(f"{self._work_prefix}{who}*"):
            if folder.stat().st_uid == os.getuid():
                _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder into which the last worker of a killed run may be writing for a moment."""
    end = time.monotonic() + _LAST_WORKER_SECONDS
    while folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
