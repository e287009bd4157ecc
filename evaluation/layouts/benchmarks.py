"""The benchmarks: how each one's data set is read, labelled by default and packed for its server."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from hvc.evaluation.layouts.davis import (
    davis2016_merged_names,
    davis2016_names,
    davis2017_names,
    read_davis2016,
    read_davis2016_merged,
    read_davis2017,
    read_test_dev,
    test_dev_names,
)
from hvc.evaluation.layouts.folder import folder_names, read_folder_sequences
from hvc.evaluation.layouts.jhmdb import jhmdb_names, read_jhmdb
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.layouts.submission import package_results
from hvc.evaluation.layouts.vip import read_vip, vip_names
from hvc.evaluation.layouts.vost import read_vost, vost_coarse, vost_names
from hvc.evaluation.layouts.youtube_vos import (
    read_youtube_vos,
    youtube_vos_coarse,
    youtube_vos_names,
)


@dataclass(frozen=True)
class Benchmark:
    """What evaluation has to know of a benchmark, besides its measures."""

    name: str
    kind: Literal["masks", "parts", "joints"]
    """What travels: ids of objects, classes of body parts, or joints."""
    preset: str
    """Name of the protocol that is taken unless another is asked for (see `presets`)."""
    read: Callable[[Path, list[str] | None], list[Sequence]]
    """The sequences of a folder that are named, by default all of the benchmark's list.

    Raises HvcError that says what was expected where.
    """
    listed: Callable[[Path], list[str]]
    """The names on the benchmark's list, whether they are there or not; cheap.

    A score over fewer of them is one of a subset.
    """
    coarse: Callable[[Path], str | None] | None = None
    """What to say when frames between the results are not there, so that labels travel in longer steps than
    in published figures; None when they are. Most benchmarks have no such frames."""
    package: Callable[[Path, list[Sequence]], Path] | None = None
    """Folder of label maps (NAME/STEM.png) -> the zip, beside it, that the benchmark's server takes; the
    format is checked. None where there is no server."""


def _youtube_vos(year: str) -> Benchmark:
    name, read = f"youtube-vos-{year}", partial(read_youtube_vos, year=year)
    package = partial(package_results, name)
    return Benchmark(name, "masks", "hvc", read, youtube_vos_names, youtube_vos_coarse, package)


def _benchmarks() -> list[Benchmark]:
    masks: Literal["masks"] = "masks"
    dev = "davis2017-test-dev"
    return [
        Benchmark("davis2016", masks, "hvc", read_davis2016, davis2016_names),
        Benchmark("davis2016-merged", masks, "hvc", read_davis2016_merged, davis2016_merged_names),
        Benchmark("davis2017", masks, "hvc", read_davis2017, davis2017_names),
        Benchmark(dev, masks, "hvc", read_test_dev, test_dev_names, package=partial(package_results, dev)),
        _youtube_vos("2018"),
        _youtube_vos("2019"),
        Benchmark("vost", masks, "hvc", read_vost, vost_names, vost_coarse),
        # HVC's settings for these two are unpublished; CRW's are those that most others compare with
        Benchmark("vip", "parts", "crw-vip", read_vip, vip_names),
        Benchmark("jhmdb", "joints", "crw-jhmdb", read_jhmdb, jhmdb_names),
        Benchmark("folder", masks, "hvc", read_folder_sequences, folder_names),
    ]


BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _benchmarks()}
"""By name."""
