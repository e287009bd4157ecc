"""What `hvc shard` needs to know."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hvc.base.config import Config
from hvc.data_prep.images import MAX_PIXELS, Gate
from hvc.data_prep.manifest import PILLOW_LIMIT, Frames
from hvc.data_prep.plan import Order
from hvc.data_prep.source_names import EXTRAS, Source

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def _not_empty(address: str) -> str:
    if not address.strip():
        raise ValueError("is empty; give a folder or s3://bucket/prefix")
    return address


def _count_or_share(value: Any) -> int | float:
    # Checked as one: a union would name its members, which nobody has written, in error messages.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"give a number or a share (got {value!r})")
    if isinstance(value, float) and not 0 <= value <= 1:
        raise ValueError(f"a share is between 0.0 and 1.0 (got {value!r}); write a number without a point")
    if value < 0:
        raise ValueError(f"a number of images is not negative (got {value})")
    return value


def _known_extras(value: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [extra for extra in value if extra not in EXTRAS]
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r}; choose from {', '.join(EXTRAS)}")
    return tuple(extra for extra in EXTRAS if extra in value)


Address = Annotated[str, AfterValidator(_not_empty)]


class InputConfig(Config):
    """One input: how it lies on disk, and where."""

    source: Source
    """Its layout."""
    address: Address
    """A folder, a *.zip or *.tar, a video file, or one of these at s3://bucket/..."""


class ShardConfig(Config):
    """Which images, how they are sharded, and where to."""

    inputs: tuple[InputConfig, ...] = Field(min_length=1)
    """What goes into the dataset, in this order."""
    output: Address
    """Folder or s3://bucket/prefix of the dataset."""
    name: str | None = None
    """Name of the dataset; by default the last parts of the inputs' addresses."""
    order: Order = "shuffled"
    seed: int = Field(0, ge=0, le=2**53)
    target_mb: float = Field(100, gt=0, allow_inf_nan=False)
    """Size of a shard, in 10^6 bytes."""
    min_shards: int = Field(1, ge=1, le=2**53)
    check: Literal["none", "header", "full"] = "full"
    """How closely images are looked at: first bytes, header, or everything decoded."""
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=PILLOW_LIMIT)
    """Images of more width x height are rejected."""
    max_side: int | None = Field(None, ge=1)
    """Images with a longer side, in pixels, are made smaller and become JPEGs; null keeps all."""
    quality: int | None = Field(None, ge=1, le=100)
    """JPEG quality of images that are encoded anew; without `max_side` all are."""
    extras: Annotated[tuple[str, ...], AfterValidator(_known_extras)] = ()
    """What travels along with an image where it has it: labels, captions, masks."""
    dedupe: bool = False
    """Leave out all but the first of files that are the same to the byte."""
    fps: float | None = Field(None, gt=0)
    """Frames per second to take from video files."""
    stride: int | None = Field(None, ge=1)
    """Or every so manyth frame."""
    max_bad: Annotated[int | float, BeforeValidator(_count_or_share)] = 0.01
    """How many images may be rejected: a number, or (with a decimal point) a share of all found."""
    workers: int = Field(0, ge=0)
    """Processes; 0 = one per CPU."""
    parts: int = Field(1, ge=1)
    """How many runs share the work; what they make is the same for any number."""
    part: int | None = Field(None, ge=0)
    """Which of them this is, from 0; null makes what is missing and finishes the dataset."""

    @model_validator(mode="after")
    def _fits(self) -> "ShardConfig":
        if self.part is not None and self.part >= self.parts:
            raise ValueError(
                f"part {self.part} of {self.parts}: parts are counted from 0 to {self.parts - 1}"
            )
        if self.fps is not None and self.stride is not None:
            raise ValueError("fps and stride both say which frames to take; give one of them")
        if self.frames is not None and Source.VIDEO not in self.sources:
            raise ValueError("fps and stride are for video files; there is no input of the source `video`")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The layout of each input."""
        return tuple(str(entry.source) for entry in self.inputs)

    @property
    def frames(self) -> Frames | None:
        """Which frames to take from video files, where that is said."""
        if self.fps is None and self.stride is None:
            return None
        return Frames(fps=self.fps, stride=self.stride)

    @property
    def gate(self) -> Gate:
        """What an image must be, and what is made of it."""
        return Gate(self.check, self.max_pixels, self.max_side, self.quality)

    @property
    def dataset_name(self) -> str:
        """The name given, or one made of the inputs' addresses."""
        return self.name or "+".join(dict.fromkeys(_last_part(entry.address) for entry in self.inputs))

    def makes(self, shard: int) -> bool:
        """Whether the shard of this number is this run's."""
        return self.part is None or shard % self.parts == self.part

    def bad_allowed(self, found: int) -> int:
        """The largest number of rejects among `found` images with which there will be a dataset."""
        return self.max_bad if isinstance(self.max_bad, int) else int(self.max_bad * found)


def _last_part(address: str) -> str:
    name = PurePosixPath(address.removeprefix("s3://")).name or "images"
    ending = next((end for end in _ARCHIVES if name.lower().endswith(end)), "")
    return name[: len(name) - len(ending)] or name
