"""Everything found in the inputs, in one fixed order, in columns: 14 million records fit in memory."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hvc.data_prep.tree import Entry, Place, Tree


class Extra(NamedTuple):
    """A file that travels with an image: the member's extension (`txt`, `mask.png`) and what to read."""

    ext: str
    entry: Entry


class Record(NamedTuple):
    """One image as it was found."""

    path: str
    size: int = 0
    place: Place | None = None
    label: str | None = None
    """Class name; its number is its position among the sorted class names of all inputs."""
    video: str | None = None
    """Name of the video that this is a frame of, unique within the input."""
    frame: int | None = None
    """Number of the frame in its video, as its file name or the decoder says."""
    time: float | None = None
    """Seconds from the start of the video, where known."""
    extras: tuple[Extra, ...] = ()
    input: int = 0
    """Which input it comes from (filled in by the catalog)."""


class Catalog:
    """The records of all inputs; record `i` is the same on every machine for the same inputs."""

    @classmethod
    def build(cls, inputs: Sequence[tuple[Tree, Iterable[Record]]]) -> "Catalog":
        """Take records up in the order given, input after input."""
        raise NotImplementedError
