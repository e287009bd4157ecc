"""What is known of finished sequences, and of which files it is true."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hvc.base.files import read_json, write_atomic
from hvc.base.storage import sha256_file
from hvc.evaluation.layouts.sequences import Sequence

_READERS = 8
EVALUATOR_VERSION = 4
"""Raised whenever the same weights and files would get other labels or scores; older records lapse."""


def sequence_digest(sequence: Sequence) -> str:
    """sha256 (hex) over names and contents of a sequence's frames, given masks, annotations and joints.

    Names and bytes, not times or folders: a copy is the same data, a redrawn mask is not.
    """
    known: dict[Path, str] = {}

    def contents(path: Path | None) -> str | None:
        if path is None:
            return None
        if path not in known:  # the first mask is usually an annotation, too
            known[path] = sha256_file(path)
        return known[path]

    return _digest(
        {
            "name": sequence.name,
            "single_object": sequence.single_object,
            "frames": [[path.name, contents(path)] for path in sequence.frames],
            "masks": {str(index): contents(path) for index, path in sequence.masks.items()},
            "annotations": [contents(path) for path in sequence.annotations],
            "joints": contents(sequence.joints),
            "results": sequence.results,
            "classes": sequence.classes,
        }
    )


def sequence_digests(sequences: Iterable[Sequence]) -> list[str]:
    """The digests of several, in their order."""
    with ThreadPoolExecutor(_READERS) as threads:  # hashing lets other threads run
        return list(threads.map(sequence_digest, sequences))


def dataset_digest(sequences: Mapping[str, str]) -> str:
    """sha256 (hex) over the digests of sequences by name, whatever their order."""
    return _digest(dict(sequences))


def read_finished(record: Path, digest: str) -> dict[str, Any] | None:
    """The record of a finished sequence; None where there is none of this version and these files."""
    known = read_json(record)
    if known is None or known.get("evaluator") != EVALUATOR_VERSION or known.get("data_digest") != digest:
        return None
    return known


def write_finished(record: Path, digest: str, result: dict[str, Any]) -> dict[str, Any]:
    """Store a sequence's result with what it is true of; returns what was stored."""
    content = {**result, "evaluator": EVALUATOR_VERSION, "data_digest": digest}
    write_atomic(record, json.dumps(content))
    return content


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
