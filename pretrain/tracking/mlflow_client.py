"""How this project speaks with MLflow: its address, a client that gives up soon, an experiment."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hvc.base.addresses import masked, public
from hvc.base.errors import HvcError, UsageError
from hvc.base.files import put_if_absent
from hvc.pretrain.tracking.network_words import network_words

_CLIENT_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # who must get through tries again, and knows how long
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for our results
}


_LONGEST = 200
"""Characters of an exception's text that are shown."""


def client_of(uri: str) -> Any:
    """An MlflowClient that gives up soon; nothing is asked yet. The first one takes 2 s of imports."""
    for key, value in _CLIENT_DEFAULTS.items():
        os.environ.setdefault(key, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # who asks says what became of it
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if uri.startswith("sqlite:///"):
        _make_database(Path(uri.removeprefix("sqlite:///")))
    return mlflow.MlflowClient(uri)


def _make_database(path: Path) -> None:
    """A new SQLite database, whole or not at all: MLflow's own making of it, killed, spoils it for good."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    import mlflow

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / path.name
        mlflow.MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        with suppress(FileExistsError):  # somebody else was quicker
            put_if_absent(made, path)


def connect(uri: str) -> Any:
    """An MlflowClient that gives up soon; HvcError when the server or database does not answer."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # nobody here tries again
    try:
        client = client_of(uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # noqa: BLE001 - MLflow raises anything from requests to SQLAlchemy
        raise HvcError(
            f"MLflow at {public(uri)} does not answer ({shown(error, uri)}); start the server, or correct "
            "the address: --tracking-uri, tracking.uri of a recipe, or MLFLOW_TRACKING_URI; without any, "
            "it is the local outputs/mlflow.db"
        ) from None
    return client


@contextmanager
def answering(uri: str, advice: str = "run the same command again") -> Iterator[None]:
    """Whatever MLflow raises in here is an HvcError that ends with `advice`; our own errors pass."""
    try:
        yield
    except HvcError:
        raise
    except Exception as error:  # noqa: BLE001 - MLflow raises anything from requests to SQLAlchemy
        raise HvcError(
            f"MLflow at {public(uri)} stopped answering: {shown(error, uri)}; {advice}"
        ) from None


def experiments_of(client: Any, uri: str, name: str | None) -> dict[str, str]:
    """Id -> name of the experiment of this name (None: of all); UsageError if there is none."""
    names = {item.experiment_id: item.name for item in client.search_experiments()}
    chosen = {key: one for key, one in names.items() if name in (None, one)}
    if not chosen and name is not None:
        known = ", ".join(sorted(names.values())) or "none"
        raise UsageError(f"no experiment {name!r} at {public(uri)}; there are: {known}")
    return chosen


def first_line(error: BaseException) -> str:
    """An exception in one short line."""
    return _shortened(_text(error))


def shown(error: BaseException, uri: str) -> str:
    """An exception in one short line, without the user and password that `uri` may hold."""
    return _shortened(masked(_text(error), uri))  # half a password is no longer found


def _text(error: BaseException) -> str:
    words = network_words(error) or str(error).strip()
    return (words.splitlines() or [type(error).__name__])[0]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def is_refusal(error: BaseException) -> bool:
    """Whether the server understood and will never take it; anything else may work when tried again."""
    code = getattr(error, "error_code", "")
    return code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")


def is_missing(error: BaseException) -> bool:
    """Whether the server says that what was asked for is not there."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The id of an experiment, made if it is not there yet."""
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):  # else artifacts would land in the current folder
        location = str(Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts")
    kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens its training views
    return str(client.create_experiment(name, artifact_location=location, tags=kind))
