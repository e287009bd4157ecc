"""Contract 1, the manifest: what a sharded dataset is. Written last; without it there is no dataset.

`manifest.json` lies beside the shards. It lists every shard with its size, hash and sample count and
names one index file per shard (see `index.py`), so that its own size grows with shards, not samples.
It holds no time, host or address: the same input and options give the same bytes anywhere.
"""

import hashlib
import json
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hvc.base.errors import HvcError
from hvc.base.storage import MissingError, Store, safe_name

MANIFEST_VERSION = 2
MANIFEST_NAME = "manifest.json"
REJECTS_NAME = "rejects.jsonl"
DUPLICATES_NAME = "duplicates.jsonl"
GROUPS_NAME = "groups.jsonl"
MANIFEST_FORMAT = "hvc-manifest"

PILLOW_LIMIT = 178_956_970
"""Pixels from which on Pillow refuses to open a file, also in training."""

ObjectName = Annotated[str, AfterValidator(safe_name)]  # relative to the manifest, never outside
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**53)]  # what JSON keeps exactly


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRef(_Part):
    """A file of the dataset and its hash."""

    path: ObjectName
    sha256: Sha256


class Shard(_Part):
    """One tar: size in bytes, hash, number of samples, and its index file."""

    path: ObjectName
    bytes: Count
    sha256: Sha256
    samples: Annotated[int, Field(gt=0)]
    index: FileRef


class Frames(_Part):
    """Which frames were taken out of video files: so many per second, or every so manyth."""

    fps: float | None = None
    stride: int | None = None


class Made(_Part):
    """The options that decide every byte of the shards, and the state of the input.

    What version 1 did not have yet has a default: that is what version 1 did.
    """

    sources: tuple[str, ...] = ()  # layout of each input, in order
    order: Literal["shuffled", "input"]
    seed: Count
    target_mb: float
    min_shards: Count
    max_pixels: Annotated[int, Field(ge=0, le=PILLOW_LIMIT)]
    check: Literal["none", "header", "full"] = "full"
    max_side: int | None = None
    quality: int | None = None
    dedupe: bool = False
    extras: tuple[str, ...] = ()  # labels, captions, masks
    frames: Frames | None = None  # only where there are video files
    pillow: str | None = None  # version of the encoder, only where images are encoded again
    input: Sha256  # over path, size and label of every image found
    hvc: str  # version of this package


class Manifest(_Part):
    """The whole dataset. `found` = `samples` + `rejected` + `duplicates`."""

    format: Literal["hvc-manifest"] = "hvc-manifest"
    version: int = MANIFEST_VERSION
    name: str
    source: str
    made: Made
    samples: Count
    found: Count
    rejected: Count
    duplicates: Count = 0
    rejects: FileRef | None = None  # JSON lines of path and reason
    duplicates_list: FileRef | None = None  # JSON lines of path and same_as
    groups: FileRef | None = None  # JSON lines of [video or null, samples], in sample order
    shards: tuple[Shard, ...]
    classes: tuple[str, ...] = ()  # class names in label order; empty without labels
    digest: Sha256 | Literal[""] = ""

    def compute_digest(self) -> str:
        """The dataset's name everywhere: sha256 over format version, ordered shard hashes and counts."""
        shards = [[shard.sha256, shard.samples] for shard in self.shards]
        text = json.dumps([self.format, self.version, self.samples, shards], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def sealed(self) -> Self:
        """The same manifest with its digest filled in."""
        return self.model_copy(update={"digest": self.compute_digest()})

    def to_bytes(self) -> bytes:
        """The file's content (JSON, ASCII)."""
        return (json.dumps(self.model_dump(mode="json"), indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self:
        """Parse and check a manifest; `where` names it in the HvcError that damage raises."""
        try:
            plain = json.loads(data)
        except ValueError as error:
            raise HvcError(
                f"{where} is damaged: not JSON ({error}); shard the images again, to another place"
            ) from None
        _check_version(plain, where)
        try:
            manifest = cls.model_validate(plain)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise HvcError(
                f"{where} is damaged: {key}: {first['msg']}; shard the images again, to another place"
            ) from None
        manifest._check_sums(where)
        return manifest

    def _check_sums(self, where: str) -> None:
        advice = "it was altered after it was written; shard the images again, to another place"
        if self.digest != self.compute_digest():
            raise HvcError(f"{where}: the digest does not match the shards: {advice}")
        if self.samples != sum(shard.samples for shard in self.shards):
            raise HvcError(f"{where}: `samples` is not the sum over the shards: {advice}")
        names = [name for shard in self.shards for name in (shard.path, shard.index.path)]
        twice = next((name for name, times in Counter(names).items() if times > 1), None)
        if twice is not None:
            raise HvcError(f"{where} names a file twice: {twice}; {advice}")
        if self.found != self.samples + self.rejected + self.duplicates:
            raise HvcError(f"{where}: `found` is not samples + rejected + duplicates: {advice}")


def read_manifest(store: Store) -> Manifest:
    """The manifest of the dataset in a store; HvcError when missing, damaged or of a newer version."""
    where = store.where(MANIFEST_NAME)
    try:
        data = store.read(MANIFEST_NAME)
    except MissingError as error:
        raise HvcError(
            f"no dataset at {store.address}: {MANIFEST_NAME} is missing; was sharding finished? ({error})"
        ) from None
    return Manifest.from_bytes(data, where)


def _check_version(plain: object, where: str) -> None:
    if not isinstance(plain, dict) or plain.get("format") != MANIFEST_FORMAT:
        raise HvcError(f"{where} is not a manifest of hvc (no {MANIFEST_FORMAT!r} in `format`)")
    version = plain.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise HvcError(
            f"{where} has the unknown version {version!r}; shard the images again, to another place"
        )
    if version > MANIFEST_VERSION:
        raise HvcError(
            f"{where} has version {version}, this hvc reads up to {MANIFEST_VERSION}; update hvc"
        )
