"""Zip files in the form that the benchmarks' servers take."""

import os
import tempfile
import zipfile
from pathlib import Path

from hvc.base.errors import HvcError, PlaceError
from hvc.evaluation.layouts.result_check import check_results, results_prefix
from hvc.evaluation.layouts.sequences import Sequence

_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip can say: the same labels make the same zip."""


def package_results(benchmark: str, labels: Path, sequences: list[Sequence]) -> Path:
    """Pack label maps for a benchmark's server and check them.

    Args:
        benchmark: its name.
        labels: holds NAME/STEM.png for every frame that is a result; other files stay out.
        sequences: what was labelled.

    Returns the zip, `BENCHMARK.zip` beside the folder; it is whole or not there. Raises HvcError that names
    label maps which are missing or have a wrong form.
    """
    path = labels.parent / f"{benchmark}.zip"
    entries = _entries(benchmark, labels, sequences)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for entry, source in entries.items():
                archive.writestr(_info(entry), source.read_bytes())
        check_results(benchmark, sequences, temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise PlaceError(
            f"cannot write {path}: {error.strerror or error}; free some space: the same command goes on"
        ) from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def _entries(benchmark: str, labels: Path, sequences: list[Sequence]) -> dict[str, Path]:
    entries = {}
    for sequence in sequences:
        for index in sequence.results:
            name = f"{sequence.name}/{sequence.frames[index].stem}.png"
            if not (labels / name).is_file():
                raise HvcError(f"expected the label map {labels / name}; finish the evaluation first")
            entries[results_prefix(benchmark) + name] = labels / name
    return dict(sorted(entries.items()))


def _info(entry: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(entry, _TIME)  # stored: PNG is compressed already
    info.external_attr = 0o644 << 16
    info.create_system = 3
    return info
