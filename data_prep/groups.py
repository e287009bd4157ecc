"""The runs of samples that belong to one video, as `groups.jsonl` lists them."""

import hashlib
import json
from collections.abc import Iterator

from hvc.base.errors import HvcError
from hvc.base.storage import Store
from hvc.data_prep.manifest import Manifest

Run = tuple[str | None, int]
"""Name of a video (None: single images) and the number of samples that follow each other."""


def read_groups(store: Store, manifest: Manifest) -> list[Run]:
    """All runs in sample order; one run of single images where there is no list.

    Raises HvcError when the list is damaged or counts other samples than the manifest.
    """
    if manifest.groups is None:
        return [(None, manifest.samples)]
    where = store.where(manifest.groups.path)
    data = store.read(manifest.groups.path)
    if hashlib.sha256(data).hexdigest() != manifest.groups.sha256:
        raise HvcError(f"{where}: altered after it was written; run `hvc verify`")
    runs = list(parse_groups(data, where))
    if (total := sum(count for _, count in runs)) != manifest.samples:
        raise HvcError(f"{where}: {total} samples, the manifest says {manifest.samples}")
    return runs


def parse_groups(data: bytes, where: str) -> Iterator[Run]:
    """The runs in a file's content; HvcError that names the line that is none."""
    for number, line in enumerate(data.splitlines(), 1):
        try:
            plain = json.loads(line)
        except (ValueError, RecursionError):
            plain = None
        match plain:
            case [str() | None as video, int() as count] if count > 0 and not isinstance(count, bool):
                yield video, count
            case _:
                raise HvcError(f"{where}: line {number} is not `[video or null, samples]`")
