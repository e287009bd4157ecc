"""Digests of what a pipeline takes in from outside: listings of files, datasets, checkpoints.

An input that cannot be read here gets a digest of its name alone, and is told of: a dry run goes on.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.slurm.pipeline_plan import digest_of


@dataclass
class Inputs:
    """Looks at inputs, each once."""

    problems: list[str] = field(default_factory=list)
    """What could not be read, in words."""
    _known: dict[str, str] = field(default_factory=dict)
    _pinned: dict[str, str] = field(default_factory=dict)

    def listing(self, address: str) -> str:
        """Of a file, folder or prefix: names, sizes and, where there are such, times of change.

        Not the contents: millions of photos have to be looked at within a minute.
        """
        return self._once(f"listing of {address}", lambda: _digest_of_all(_listed(address)))

    def dataset(self, address: str) -> str:
        """Of a sharded dataset: the digest in its manifest."""

        def read() -> str:
            from hvc.data_prep.manifest import read_manifest

            return read_manifest(open_store(address)).digest

        return self._once(f"dataset {address}", read)

    def checkpoint(self, reference: str, tracking_uri: str) -> tuple[str, str]:
        """Of a checkpoint: a name that means the same one later, too, and a digest of its weights.

        `runs:/ID` and aliases move on, so the checkpoint of now is meant.
        """
        if reference.startswith("baseline:"):
            return reference, digest_of(reference)

        def read() -> str:
            from hvc.evaluation.trunks.resolve import pinned, resolve

            self._pinned[reference] = pinned(reference, tracking_uri)
            return resolve(self._pinned[reference], tracking_uri).sha256

        digest = self._once(f"checkpoint {reference}", read)
        return self._pinned.get(reference, reference), digest

    def _once(self, name: str, read: Callable[[], str]) -> str:
        if name not in self._known:
            try:
                self._known[name] = read()
            except (HvcError, OSError) as error:
                self.problems.append(f"{name}: {error}")
                self._known[name] = digest_of("not read", name)
        return self._known[name]


def _digest_of_all(files: Iterable[tuple[str, int, int]]) -> str:
    digest = hashlib.sha256()  # file by file: a list of millions would take gigabytes
    for name, size, changed in files:
        digest.update(os.fsencode(f"{name}\0{size}\0{changed}\n"))
    return digest.hexdigest()


def _listed(address: str) -> Iterator[tuple[str, int, int]]:
    """(name, bytes, time of change in ns; 0 in a bucket), in an order that depends on the names alone."""
    if address.startswith("s3://"):
        place, _, name = address.rstrip("/").rpartition("/")
        if name.endswith((".zip", ".tar")):
            yield name, open_store(place).size(name), 0
            return
        empty = True
        for name, size in open_store(address).entries():
            empty = False
            yield name, size, 0
        if empty:
            raise HvcError("nothing is there")
        return
    path = Path(address)
    if path.is_dir():
        yield from _walk(str(path), "")
    else:
        known = path.stat()
        yield path.name, known.st_size, known.st_mtime_ns


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            known = entry.stat()
            yield prefix + entry.name, known.st_size, known.st_mtime_ns
