"""The end of sharding: the list of rejects, then the manifest, which makes the shards a dataset."""

import hashlib
import json
from collections.abc import Iterable

from hvc.base.errors import HvcError
from hvc.base.storage import AlreadyExistsError, Store
from hvc.data_prep.index import INDEX_VERSION
from hvc.data_prep.manifest import MANIFEST_NAME, REJECTS_NAME, FileRef, Manifest, read_manifest
from hvc.data_prep.writer import Rejected, ShardRecord


def fingerprint(draft: Manifest) -> str:
    """sha256 over all that decides the bytes of the shards, before any of them is written."""
    text = json.dumps([INDEX_VERSION, draft.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def commit(draft: Manifest, records: Iterable[ShardRecord], store: Store) -> Manifest:
    """Write `rejects.jsonl` (if any) and the manifest; HvcError when no image was good."""
    records = list(records)
    rejects = sorted((bad for record in records for bad in record.rejects), key=lambda bad: bad.path)
    shards = tuple(record.shard for record in records if record.shard is not None)
    if not shards:
        raise HvcError(
            f"none of the {draft.found} images found can be used, so there is no dataset; "
            f"the first one: {rejects[0].path}: {rejects[0].reason}"
        )
    update = {
        "samples": sum(shard.samples for shard in shards),
        "rejected": len(rejects),
        "rejects": _write_rejects(rejects, store) if rejects else None,
        "shards": shards,
    }
    manifest = draft.model_copy(update=update).sealed()
    _create(manifest, store)
    return manifest


def same_dataset(draft: Manifest, store: Store) -> Manifest:
    """The finished dataset in the store, if it is what `draft` would become; else HvcError."""
    manifest = read_manifest(store)
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


def _choices(manifest: Manifest) -> dict[str, object]:
    return {"name": manifest.name, "source": manifest.source, **manifest.made.model_dump(exclude={"hvc"})}


def _write_rejects(rejects: list[Rejected], store: Store) -> FileRef:
    data = "".join(json.dumps(bad.model_dump()) + "\n" for bad in rejects).encode()
    store.write(REJECTS_NAME, data)
    return FileRef(path=REJECTS_NAME, sha256=hashlib.sha256(data).hexdigest())


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
