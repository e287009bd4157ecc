"""The folder of an evaluation's results: what lies where, and who may write it.

`labels/NAME` and the record `sequences/NAME.json` of every sequence, pictures, reports. Several
processes may work in one folder: each sequence is written by one at a time, by a file lock that dies with
its process.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hvc.base.stage import Stop
from hvc.data_prep.lock import BusyError, sole_writer
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.finished import read_finished
from hvc.evaluation.trunks.method import Method
from hvc.pretrain.output import cannot_make

_LOOK_SECONDS = 0.5


class Results:
    """One results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels, self.pictures = folder / "labels", folder / "pictures"

    def record(self, name: str) -> Path:
        """The file that says that a sequence is finished, and what came out."""
        return self.folder / "sequences" / f"{name}.json"

    def finished(self, name: str, digest: str) -> dict[str, Any] | None:
        """The record of a sequence, if it is finished with these files and its labels are all there."""
        known = read_finished(self.record(name), digest)
        if known is None or known.get("files") != count_labels(self.labels, name):
            return None
        return known

    def forget(self, name: str) -> None:
        """Remove what an earlier attempt made of a sequence: its files and frames may have been others.

        The record goes first: it must not be taken for that of the labels that come.
        """
        self.record(name).unlink(missing_ok=True)
        for path in (self.labels / name).glob("*.png"):
            path.unlink()
        (self.labels / f"{name}.json").unlink(missing_ok=True)

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """Hold a sequence while inside; BusyError when another process does."""
        with sole_writer(self._lock(name), str(self.folder)):
            yield

    def is_claimed(self, name: str) -> bool:
        """Whether another process is at work on a sequence now."""
        try:
            with self.claim(name):
                return False
        except BusyError:
            return True

    @contextmanager
    def reporting(self, stop: Stop) -> Iterator[bool]:
        """Hold the report while inside, after whoever does; False if stopped while waiting."""
        with ExitStack() as held:
            while not stop():
                try:
                    held.enter_context(sole_writer(self.folder / "report.lock", str(self.folder)))
                except BusyError:
                    time.sleep(_LOOK_SECONDS)
                else:
                    yield True
                    return
        yield False

    def _lock(self, name: str) -> Path:
        return self.folder / "locks" / f"{name}.lock"


def count_labels(labels: Path, name: str) -> int:
    """How many files of results a sequence has: label maps, or one file of joints."""
    maps = sum(1 for _ in (labels / name).glob("*.png"))
    return maps + (labels / f"{name}.json").is_file()


def results_of(config: EvaluateConfig, method: Method) -> Results:
    """Weights, data and protocol name the folder: results of one are never taken for another's.

    Raises PlaceError when it cannot be written.
    """
    seed = "" if method.seedless else config.seed
    key = f"{method.sha256}/{seed}/{config.protocol.digest()}/{config.data}"
    of = method.first.sha256[:9] if method.first.kind == "file" else method.first.kind
    name = f"{of}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    results = Results(config.results_root / name)
    try:
        results.pictures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_make(results.folder, error, "--output") from None
    return results
