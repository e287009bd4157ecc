"""Pictures of an evaluation's sequences, drawn over processes and only where something has changed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hvc.base.errors import PlaceError
from hvc.base.files import read_json, write_atomic
from hvc.base.stage import Stop
from hvc.data_prep.pool import in_processes
from hvc.evaluation.drawing.pictures import draw, draw_features, draw_overview
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.devices import devices_for
from hvc.evaluation.labelling.results import Results
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.scoring import Summary, scorer_of
from hvc.evaluation.trunks.method import Method, extractor_of

_VERSION = 1
"""Raised when the same results get other pictures."""


@dataclass(frozen=True)
class _Picture:
    """What a sequence's pictures are of."""

    sequence: Sequence
    key: str


def draw_all(
    config: EvaluateConfig,
    method: Method,
    results: Results,
    sequences: list[Sequence],
    records: dict[str, dict[str, Any]],
    summary: Summary | None,
    kind: str,
    subset: str,
    stop: Stop,
) -> list[Path] | None:
    """The files of all pictures, None if stopped before.

    HvcError where frames or results are damaged, or pictures cannot be written.

    Args:
        records: of all sequences.
        summary: None where there are no scores.
        kind: `cpu` or `cuda`.
        subset: in the name of pictures that show all sequences.
    """
    pictures = [_Picture(sequence, _key(records[sequence.name])) for sequence in sequences]
    missing = [picture for picture in pictures if _known(results, picture) is None]
    each = partial(_draw, results=results, summary=summary)
    processes = len(devices_for(config, "cpu", [picture.sequence for picture in missing])) if missing else 1
    if processes > 1:
        for _ in in_processes(each, missing, processes, stop):
            pass
    else:
        for picture in missing:
            if not stop():
                each(picture)
    if stop():
        return None
    files = [path for picture in pictures for path in _known(results, picture) or []]
    with _writing(results):
        return [*_of_all(config, method, results, sequences, summary, kind, subset), *files]


def _key(record: dict[str, Any]) -> str:
    return f"{_VERSION} {record['data_digest']} {record['time']}"


def _draw(picture: _Picture, results: Results, summary: Summary | None) -> None:
    with _writing(results):
        files = draw(picture.sequence, results.labels, summary, results.pictures)
    note = {"of": picture.key, "files": [str(path.relative_to(results.pictures)) for path in files]}
    write_atomic(_note(results, picture), json.dumps(note))


@contextmanager
def _writing(results: Results) -> Iterator[None]:
    """A disk that is full, in words."""
    try:
        yield
    except OSError as error:
        raise PlaceError(
            f"cannot draw into {results.pictures}: {error.strerror or error}; labels and scores are kept: "
            "free some space, and the same command draws what is missing"
        ) from None


def _known(results: Results, picture: _Picture) -> list[Path] | None:
    """The pictures of an earlier time, if they are of these results."""
    note = read_json(_note(results, picture))
    if note is None or note.get("of") != picture.key:
        return None
    files = [results.pictures / name for name in note["files"]]
    return files if all(path.is_file() for path in files) else None


def _note(results: Results, picture: _Picture) -> Path:
    return results.folder / "drawn" / f"{picture.sequence.name}.json"


def _of_all(
    config: EvaluateConfig,
    method: Method,
    results: Results,
    sequences: list[Sequence],
    summary: Summary | None,
    kind: str,
    subset: str,
) -> Iterator[Path]:
    folder = results.pictures / f"all{subset}"
    scorer = scorer_of(config.benchmark, config.protocol)
    if scorer is not None and summary is not None and len(sequences) > 1:
        title = f"{config.benchmark}  {config.protocol_name}{method.suffix}  {config.checkpoint}"
        yield from draw_overview(sequences, results.labels, summary, scorer.headline, folder, title)
    extractor = extractor_of(method, config, kind)
    if extractor is not None:
        size, how = config.protocol.input_size, config.protocol.image_resize
        yield from draw_features(sequences, lambda image: extractor.features(image, size, how), folder)
