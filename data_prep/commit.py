"""The end of sharding: the lists beside the shards, then the manifest, which makes them a dataset."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from hvc.base.errors import HvcError
from hvc.base.storage import AlreadyExistsError, Store
from hvc.data_prep.index import INDEX_VERSION
from hvc.data_prep.manifest import (
    DUPLICATES_NAME,
    GROUPS_NAME,
    MANIFEST_NAME,
    MANIFEST_VERSION,
    REJECTS_NAME,
    FileRef,
    Manifest,
    read_manifest,
)
from hvc.data_prep.writer import Rejected, ShardRecord

Duplicate = dict[str, str | int]
"""A file that was left out, `path`, and the one that is the same to the byte, `same_as`.

Of several inputs, `input` and `same_as_input` are theirs, from 0.
"""

_VERSIONS = {"hvc", "pillow"}  # of the software: what is finished stays good with the next one


def fingerprint(draft: Manifest) -> str:
    """sha256 over all that decides the bytes of the shards, before any of them is written."""
    text = json.dumps([INDEX_VERSION, draft.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def commit(
    draft: Manifest, records: Sequence[ShardRecord], duplicates: Iterable[Duplicate], store: Store
) -> Manifest:
    """Write the lists that have something in them and the manifest, given records in shard order.

    HvcError when no image was good.
    """
    rejects = in_order(bad for record in records for bad in record.rejects)
    shards = tuple(record.shard for record in records if record.shard is not None)
    if not shards:
        raise HvcError(
            f"none of the {draft.found} images found can be used, so there is no dataset; "
            f"the first one: {rejects[0]}"
        )
    same = list(duplicates)
    update = {
        "samples": sum(shard.samples for shard in shards),
        "rejected": len(rejects),
        "duplicates": len(same),
        "rejects": _write_lines(
            store, REJECTS_NAME, [bad.model_dump(exclude_none=True) for bad in rejects]
        ),
        "duplicates_list": _write_lines(store, DUPLICATES_NAME, same),
        "groups": _write_lines(store, GROUPS_NAME, _groups(records)),
        "shards": shards,
    }
    manifest = draft.model_copy(update=update).sealed()
    _create(manifest, store)
    return manifest


def in_order(rejects: Iterable[Rejected]) -> list[Rejected]:
    """As they are listed: input by input, by path."""
    return sorted(rejects, key=lambda bad: (bad.input or 0, bad.path))


def same_dataset(draft: Manifest, store: Store) -> Manifest:
    """The finished dataset in the store, if it is what `draft` would become; else HvcError."""
    manifest = read_manifest(store)
    if manifest.version != MANIFEST_VERSION:
        raise HvcError(
            f"{store.address} already holds a dataset that an earlier hvc made; it stays readable; "
            "choose another output"
        )
    wanted, there = _choices(draft), _choices(manifest)
    different = [key for key in wanted if wanted[key] != there[key]]
    if different:
        details = ", ".join(
            "other images" if key == "input" else f"{key} {there[key]!r}, now {wanted[key]!r}"
            for key in different
        )
        raise HvcError(
            f"{store.address} already holds a dataset that was made differently ({details}); "
            "choose another output"
        )
    return manifest


def read_rejects(manifest: Manifest, store: Store) -> list[Rejected]:
    """The images that a finished dataset's list says were turned away."""
    if manifest.rejects is None:
        return []
    lines = store.read(manifest.rejects.path).splitlines()
    return [Rejected.model_validate_json(line) for line in lines]


def _choices(manifest: Manifest) -> dict[str, object]:
    made = manifest.made.model_dump(exclude=_VERSIONS)
    return {"name": manifest.name, "source": manifest.source, **made}


def _groups(records: Sequence[ShardRecord]) -> list[tuple[str | None, int]]:
    """Runs of samples of one video over all shards; empty where there are no videos."""
    runs = [run for record in records for run in record.runs]
    if all(run.video is None for run in runs):
        return []
    return [
        (video, sum(run.samples for run in together))
        for (video, _), together in groupby(runs, key=lambda run: (run.video, run.input))
    ]


def _write_lines(store: Store, name: str, values: Sequence[Any]) -> FileRef | None:
    if not values:
        return None
    data = b"".join(_lines(values))
    store.write(name, data)
    return FileRef(path=name, sha256=hashlib.sha256(data).hexdigest())


def _lines(values: Sequence[Any]) -> Iterator[bytes]:
    return (json.dumps(value).encode() + b"\n" for value in values)


def _create(manifest: Manifest, store: Store) -> None:
    data = manifest.to_bytes()
    try:
        store.create(MANIFEST_NAME, data)
    except AlreadyExistsError:
        if store.read(MANIFEST_NAME) != data:  # equal: the same command ran twice at once
            raise HvcError(
                f"{store.where(MANIFEST_NAME)} was written by somebody else meanwhile; "
                "choose another output"
            ) from None
