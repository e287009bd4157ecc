"""Which MLflow a command speaks with, where nobody says so: for every command the same."""

import os
from pathlib import Path

from hvc.base.addresses import public
from hvc.pretrain.tracking.run_note import RunNote

DATABASE = Path("outputs/mlflow.db")
"""Where runs are recorded by default, whatever their output folder: below the folder that a command is
started in."""


def default_uri() -> str:
    """MLFLOW_TRACKING_URI, else SQLite in `DATABASE`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DATABASE.absolute()}"


def uri_of_run(folder: Path, given: str | None = None) -> str:
    """Where the run of an output folder goes: given, by MLFLOW_TRACKING_URI, as so far, else `DATABASE`."""
    note = None if given or os.environ.get("MLFLOW_TRACKING_URI") else RunNote.read(folder)
    return given or (note.tracking_uri if note else default_uri())


def recorded_uri(folder: Path) -> str:
    """Where the run of an output folder was recorded; the environment's form may have its password."""
    note, ours = RunNote.read(folder), os.environ.get("MLFLOW_TRACKING_URI")
    if note is None:
        return default_uri()
    return ours if ours and public(ours) == note.tracking_uri else note.tracking_uri
