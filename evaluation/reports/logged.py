"""What a run at MLflow says of its evaluations besides numbers: reports, and which files they are of."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hvc.pretrain.tracking.mlflow_client import is_missing

_MIXED = "mixed"


@dataclass(frozen=True)
class Data:
    """Which files were evaluated on."""

    digest: str
    """See `finished.dataset_digest`."""
    sequences: int


def data_tag(path: str) -> str:
    """The tag of a run that says which files all its scores below a metrics path are of."""
    return f"hvc.{path}"


def data_of(tags: Mapping[str, str], path: str) -> Data | None:
    """The files of all scores below a path; None where they are of several, or unknown: see the reports."""
    digest, _, count = tags.get(data_tag(path), "").partition(" ")
    return Data(digest, int(count)) if digest != _MIXED and count.isdecimal() else None


def note_data(client: Any, run: Any, path: str, data: Data) -> None:
    """Say that a run gets scores of these files below a path: before they are sent, and once more after.

    Of two that score other files at the same time one sees afterwards what the other wrote.
    """
    tags, words = run.data.tags, f"{data.digest} {data.sequences}"
    known = tags.get(data_tag(path))
    if known in (words, _MIXED):
        return
    if known is None and any(name.startswith(f"{path}/") for name in run.data.metrics):
        words = _MIXED  # of earlier scores nothing was said
    client.set_tag(run.info.run_id, data_tag(path), words if known is None else _MIXED)


def read_report(client: Any, run: Any, path: str, step: int) -> dict[str, Any]:
    """An evaluation's report; empty where it is gone or was not written by this project.

    Raises whatever MLflow raises when it does not answer.
    """
    name = f"{report_folder(path, step)}/scores.json"
    content = read_artifact(client, run.info.run_id, run.info.artifact_uri, name)
    try:
        report = json.loads(content or b"{}")
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def report_folder(path: str, step: int) -> str:
    """Where the report and pictures of a step lie among a run's artifacts."""
    return f"{path}/step-{step:08d}"


def read_artifact(client: Any, run_id: str, root: str, path: str) -> bytes | None:
    """The bytes of a run's artifact; None where it is not there. A local folder is read directly."""
    parts = urlsplit(root)
    if parts.scheme in ("", "file"):
        file = Path(unquote(parts.path)) / path
        return file.read_bytes() if file.is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(client.download_artifacts(run_id, path, folder)).read_bytes()
        except Exception as error:
            if is_missing(error) or "404" in str(error) or isinstance(error, FileNotFoundError):
                return None
            raise
