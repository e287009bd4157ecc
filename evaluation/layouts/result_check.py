"""Whether results have the form in which a benchmark's server or toolkit reads them."""

import io
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.common import raise_all, some
from hvc.evaluation.layouts.images import picture_size
from hvc.evaluation.layouts.joint_files import read_tracked
from hvc.evaluation.layouts.sequences import Sequence, object_ids

_PREFIXES = {"youtube-vos-2018": "Annotations/", "youtube-vos-2019": "Annotations/"}
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)
"""What Pillow and zipfile raise of damaged files, and of encrypted ones or unknown compression."""


def results_prefix(benchmark: str) -> str:
    """The folder inside a submission's zip that holds those of the sequences; nothing for most."""
    return _PREFIXES.get(benchmark, "")


def check_results(benchmark: str, sequences: list[Sequence], results: Path, *, chosen: bool = False) -> int:
    """Check results of any method: a folder or a zip with NAME/STEM.png (JHMDB: a folder with NAME.json).

    A zip for YouTube-VOS has all that below `Annotations`; a folder may.

    Args:
        benchmark: its name.
        sequences: those that must be there.
        results: the folder or zip.
        chosen: they are some of the benchmark's, and what is there for others is nobody's business.

    Returns how many files were checked. Raises HvcError with a line per problem: files that are missing or
    belong to nothing, label maps that are damaged, of another size than the video, in colour, or show ids
    that are not given in that video.
    """
    if sequences and sequences[0].joints is not None:
        return _check_joints(sequences, results, chosen)
    with _open(results) as files:
        prefix = _prefix(benchmark, files)
        wanted = {
            sequence.name: [
                f"{prefix}{sequence.name}/{sequence.frames[index].stem}.png" for index in sequence.results
            ]
            for sequence in sequences
        }
        every = {name for names in wanted.values() for name in names}
        if chosen:
            own = tuple(f"{prefix}{sequence.name}/" for sequence in sequences)
            files.names = {name for name in files.names if name.startswith(own)}
        problems = _names(files, every)
        for sequence in sequences:
            size, ids = picture_size(sequence.frames[0]), set(object_ids(sequence).tolist())
            for name in wanted[sequence.name]:
                if name in files.names:
                    problems += _label_map(files, name, size, ids, sequence)
    raise_all(problems)
    return len(every)


class _Files(ABC):
    """What is in a folder or a zip, by name."""

    def __init__(self, place: Path, names: set[str]) -> None:
        self.place, self.names = place, names

    @abstractmethod
    def read(self, name: str) -> bytes: ...


class _Folder(_Files):
    def read(self, name: str) -> bytes:
        return (self.place / name).read_bytes()


class _Zip(_Files):
    def __init__(self, place: Path, archive: zipfile.ZipFile) -> None:
        super().__init__(place, {info.filename for info in archive.infolist() if not info.is_dir()})
        self._archive = archive

    def read(self, name: str) -> bytes:
        return self._archive.read(name)


@contextmanager
def _open(results: Path) -> Iterator[_Files]:
    if results.is_dir():
        files = (path for path in results.rglob("*") if path.is_file())
        yield _Folder(results, {path.relative_to(results).as_posix() for path in files})
    elif results.is_file():
        try:
            archive = zipfile.ZipFile(results)
        except (zipfile.BadZipFile, OSError) as error:
            raise HvcError(f"{results}: neither a folder nor a readable zip ({error})") from None
        with archive:
            yield _Zip(results, archive)
    else:
        raise HvcError(f"no such folder or zip: {results}")


def _prefix(benchmark: str, files: _Files) -> str:
    prefix = results_prefix(benchmark)
    if isinstance(files, _Folder) and not (files.place / "Annotations").is_dir():
        return ""
    return prefix


def _names(files: _Files, wanted: set[str]) -> list[str]:
    missing = sorted(wanted - files.names)
    extra = sorted(files.names - wanted)
    problems = []
    if missing and len(missing) == len(wanted):
        problems.append(f"{files.place}: expected {missing[0]} and so on, there is {some(extra)}")
    elif missing:
        problems.append(f"{files.place}: {len(missing)} files are missing: {some(missing)}")
    if extra and len(missing) < len(wanted):
        problems.append(f"{files.place}: {len(extra)} files belong to no frame: {some(extra)}")
    return problems


def _label_map(
    files: _Files, name: str, size: tuple[int, int], ids: set[int], sequence: Sequence
) -> list[str]:
    try:
        labels = _decode(files.read(name))
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        return [f"{name}: {error}"]
    if labels.shape != size:
        height, width = labels.shape
        return [f"{name} is {width} x {height} pixels, but the video is {size[1]} x {size[0]}"]
    shown = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())
    if sequence.single_object and shown <= {0, 255}:
        return []
    classes = set(range(sequence.classes)) if sequence.classes else ids
    others = sorted(shown - classes)
    if others:
        return [f"{name} shows {_ids(others)}, but {sequence.name} has only {_ids(sorted(classes - {0}))}"]
    return []


def _ids(numbers: list[int]) -> str:
    return f"id{'s' if len(numbers) > 1 else ''} {some([str(number) for number in numbers])}"


def _decode(content: bytes) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(content))
    if image.format != "PNG" or image.mode not in ("P", "L"):
        raise ValueError(
            f"a label map must be a palette or 8-bit grey PNG of ids, this is {image.format} {image.mode}"
        )
    return np.asarray(image)


def _check_joints(sequences: list[Sequence], results: Path, chosen: bool) -> int:
    extra = {path.name for path in results.glob("*.json")} - {f"{item.name}.json" for item in sequences}
    problems = []
    if extra and not chosen:
        problems.append(f"{results}: {len(extra)} files belong to no clip: {some(sorted(extra))}")
    for sequence in sequences:
        path = results / f"{sequence.name}.json"
        try:
            tracked = read_tracked(path)
        except HvcError as error:
            problems.append(str(error))
            continue
        stems = [frame.stem for frame in sequence.frames]
        if tracked.frames != stems:
            found = some(tracked.frames)
            problems.append(
                f"{path}: expected joints of the {len(stems)} frames {some(stems)}, not {found}"
            )
        height, width = picture_size(sequence.frames[0])
        if (tracked.width, tracked.height) != (width, height):
            found = f"{tracked.width} x {tracked.height}"
            problems.append(f"{path} is for {found} pixels, but the video is {width} x {height}")
    raise_all(problems)
    return len(sequences)
