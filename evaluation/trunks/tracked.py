"""Which MLflow a checkpoint's scores belong to, and how that is said without its password."""

from pathlib import Path

from hvc.base.addresses import masked
from hvc.pretrain.tracking.tracking_uri import default_uri, uri_of_run


def tracking_uri(given: str | None, checkpoint: str) -> str:
    """The given URI, else MLFLOW_TRACKING_URI, else where the run of a checkpoint folder was recorded.

    A checkpoint folder is RUN/checkpoints/step-N, and RUN/run.json knows. Without one, or where
    `checkpoint` is empty: `outputs/mlflow.db`. The environment's URI may hold a password: show it with
    `public` or `shown` only.
    """
    folder = Path(checkpoint)
    if checkpoint and folder.is_dir():
        return uri_of_run(folder.resolve().parent.parent, given)
    return given or default_uri()


def shown(error: BaseException, uri: str) -> str:
    """An error's text without the user and password that `uri` may hold."""
    return masked(str(error), uri)
