"""What `hvc bench-data` measures, as plain numbers."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Stage:
    """Speed of one stage, measured alone."""

    name: str
    samples: int
    seconds: float
    mean_bytes: float
    """Of an encoded image."""
    cumulated: float | None = None
    """Samples/s of this stage and all that it needs, on one core; None for the stream itself."""

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds

    @property
    def mb_per_second(self) -> float:
        """The same in MB (10^6 bytes) of encoded images."""
        return self.rate * self.mean_bytes / 1e6


@dataclass(frozen=True)
class Stream:
    """The real stream of one rank's batches."""

    stage: Stage
    first_batch_seconds: float
    """From the start of loader processes to the first batch."""
    memory_mb: float
    """Of the largest loader process, in 10^6 bytes; what processes share is divided among them."""
    requests: float
    """To object storage, per second."""
    retries: int
    hit_rate: float | None
    """Share of ranges that the cache had; None without a cache, or if nothing was asked of it."""

    def waiting(self, images_per_second: float) -> float:
        """Share of time that a GPU which takes so many images/s would stand still."""
        return max(0.0, 1 - self.stage.rate / images_per_second)


@dataclass(frozen=True)
class Report:
    """All figures of one dataset."""

    address: str
    samples: int
    remote: bool
    workers: int
    ranks: int
    bad: int
    """Corrupt samples met while reading and decoding."""
    stages: tuple[Stage, ...]
    streams: tuple[Stream, ...]
    """Views cut by the loader processes; views cut later, on the device."""
    quality: tuple[str, ...]

    def values(self, gpu_images_per_second: float) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "dataset": self.address,
            "samples": self.samples,
            "workers": self.workers,
            "ranks": self.ranks,
            "bad_samples": self.bad,
            "gpu_images_per_second": gpu_images_per_second,
            "stages": [_stage_values(stage) for stage in self.stages],
            "streams": [
                asdict(each)
                | {"stage": _stage_values(each.stage), "gpu_waits": each.waiting(gpu_images_per_second)}
                for each in self.streams
            ],
            "quality": list(self.quality),
        }


def _stage_values(stage: Stage) -> dict[str, Any]:
    return asdict(stage) | {"samples_per_second": stage.rate, "mb_per_second": stage.mb_per_second}
