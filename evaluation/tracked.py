"""Which MLflow a checkpoint's scores belong to, and how that is said without its password."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.base.files import read_json
from hvc.pretrain import mlflow_client
from hvc.pretrain.tracking_uri import default_uri

RUN_NOTE = "run.json"
"""Training's note of its run and tracking URI, in the run's folder."""


def tracking_uri(given: str | None, checkpoint: str) -> str:
    """The given URI, else MLFLOW_TRACKING_URI, else where the run of a checkpoint folder was recorded.

    A checkpoint folder is RUN/checkpoints/step-N, and RUN/run.json knows. Without one:
    `outputs/mlflow.db`. The environment's URI may hold a password: show it with `public` or `shown` only.
    """
    if given:
        return given
    folder = Path(checkpoint)
    if not os.environ.get("MLFLOW_TRACKING_URI") and folder.is_dir():
        note = read_json(folder.resolve().parent.parent / RUN_NOTE) or {}
        recorded = note.get("tracking_uri")
        if isinstance(recorded, str) and recorded:
            return recorded
    return default_uri()


def connect(uri: str) -> Any:
    """An MlflowClient; HvcError, without the URI's password, when the server does not answer."""
    try:
        return mlflow_client.connect(uri)
    except HvcError as error:
        raise HvcError(shown(error, uri)) from None


def shown(error: BaseException, uri: str) -> str:
    """An error's text without the user and password that `uri` may hold."""
    text = str(error).replace(uri, public(uri))
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return text.replace(user + at, "") if at else text
