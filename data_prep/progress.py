"""What an unfinished sharding run leaves for the next one, below `.progress/` of the output.

`.progress/plan.json` names the plan that the run follows, `.progress/SHARD.json` is written once that
shard and its index are in place. Both vanish when the manifest is there. One run at a time writes to a
folder; to S3, one at a time per machine.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from hvc.base.errors import HvcError
from hvc.base.storage import FolderStore, MissingError, Store, sha256_file
from hvc.data_prep.lock import sole_writer
from hvc.data_prep.manifest import MANIFEST_NAME, REJECTS_NAME
from hvc.data_prep.writer import ShardRecord, Task, write_shard

_FOLDER = ".progress"
_PLAN = f"{_FOLDER}/plan.json"
_LOCK = "lock"
SHARD_FILE = re.compile(r"shard-\d{6,}\.(tar|idx)")
"""Names of the files that sharding writes (shards and their indexes)."""


class Progress:
    """The finished shards of one plan in one store; travels to worker processes."""

    def __init__(self, store: Store, plan: str) -> None:
        self._store, self._plan = store, plan
        self._local = Path(store.address) if isinstance(store, FolderStore) else None
        if self._local:
            self._work_parent, self._work_prefix = self._local / _FOLDER, "work-"
            self._lock = self._work_parent / _LOCK
        else:
            output = hashlib.sha256(store.address.encode()).hexdigest()[:16]
            self._work_parent, self._work_prefix = Path(tempfile.gettempdir()), f"hvc-shard-{output}-"
            self._lock = self._work_parent / f"hvc-shard-{output}.{os.getuid()}.lock"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While inside, no other run writes to the output; HvcError when one does already."""
        try:
            with sole_writer(self._lock, self._store.address):
                yield
        finally:
            if self._local:
                with suppress(OSError):  # not empty: the next run goes on from what is in it
                    (self._local / _FOLDER).rmdir()

    def is_clean(self) -> bool:
        """Whether a finished dataset has nothing left beside it that `close` would remove."""
        return self._local is not None and not (self._local / _FOLDER).exists()

    def begin(self) -> None:
        """Take up this plan's earlier work, or remove what a different unfinished plan left.

        Raises HvcError when the output holds shards of unknown origin.
        """
        self._remove_work_folders()
        found = self._found_plan()
        if found == self._plan:
            return
        surplus = [name for name in self._store.names("shard-") if SHARD_FILE.fullmatch(name)]
        if found is None and surplus:
            raise HvcError(
                f"{self._store.where(surplus[0])} is already there, but no record of how it was made; "
                "choose an empty output"
            )
        if found is not None:
            for name in [*surplus, REJECTS_NAME]:
                self._store.delete(name)
            self.close()
        self._store.write(_PLAN, json.dumps({"plan": self._plan}).encode())

    def make(self, task: Task, work: Path) -> ShardRecord:
        """Write and upload one shard, unless an earlier run did; safe to repeat at any point."""
        record = self._finished(task.name)
        if record is not None:
            return record
        record = write_shard(task, work)
        if record.shard is not None:
            for name in (record.shard.path, record.shard.index.path):
                self._store.upload(name, work / name)
        self._store.write(f"{_FOLDER}/{task.name}.json", record.model_dump_json().encode())
        return record

    @contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A local folder for shards being written; inside the output, if that is a folder."""
        with tempfile.TemporaryDirectory(prefix=self._work_prefix, dir=self._work_parent) as folder:
            yield Path(folder)

    def close(self) -> None:
        """Remove all traces of the run, except what it made."""
        if self._local is None:
            for name in list(self._store.names(f"{_FOLDER}/")):
                self._store.delete(name)
            return
        for name in (MANIFEST_NAME, REJECTS_NAME):
            for leftover in self._local.glob(f".{name}.*.tmp"):  # of a write that was killed
                leftover.unlink(missing_ok=True)
        for path in list((self._local / _FOLDER).glob("*")):
            if path.is_dir():
                shutil.rmtree(path)
            elif path != self._lock:  # that is ours until `alone` ends
                path.unlink()

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
        if self._store.size(shard.path) != shard.bytes or not self._store.exists(index.path):
            return False
        if self._local is None:  # S3 keeps what it acknowledged; reading it all back would cost more
            return True
        return (
            sha256_file(self._local / shard.path) == shard.sha256
            and sha256_file(self._local / index.path) == index.sha256
        )

    def _remove_work_folders(self) -> None:
        """Of earlier runs into this output that were killed on this machine: we hold the lock."""
        for folder in self._work_parent.glob(f"{self._work_prefix}*"):
            if folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder)
