"""Addresses of servers: they may carry a password, which belongs into no file, log or run."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


def public(uri: str) -> str:
    """The address as it may be shown: without user, password, query and fragment."""
    try:
        parts = urlsplit(uri)
        if not parts.netloc:
            return uri
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    except ValueError:
        return "(not a valid address)"


def masked(text: str, uri: str) -> str:
    """A text without the user and password that `uri`, valid or not, may hold."""
    user, at, _ = re.split("[/?#]", uri.partition("://")[2], maxsplit=1)[0].rpartition("@")
    text = text.replace(uri, public(uri))
    return text.replace(user + at, "") if at else text


def _refuse_password(uri: str) -> str:
    if "@" in uri.partition("://")[2].partition("/")[0]:
        raise ValueError(
            "holds a user or password, and configurations are stored with every result; use "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return uri


CleanUri = Annotated[str, AfterValidator(_refuse_password)]
"""An address in a configuration: one that holds a user or password is refused, unseen."""
