"""What the many errors of boto3 mean: whether they pass, and what to tell the user."""

import re
from typing import TYPE_CHECKING

from hvc.base.errors import HvcError
from hvc.base.retry import Verdict
from hvc.base.store import MissingError, StorageError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

# Answers below 500 that say: what arrived was damaged or late, or somebody else was in the way.
_PASSING_CODES = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InvalidDigest",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
_SERVER = "is the server up, and AWS_ENDPOINT_URL_S3 right?"
_LATER = "the finished part is kept where it can be: run the same command again when the server is well"
_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "certificate verify failed")


class TruncatedError(Exception):
    """An answer ended before its announced length."""


def code_of(error: "ClientError") -> str:
    """The server's name of the error, e.g. NoSuchKey; an answer without a body has its status there."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: "ClientError") -> int:
    """The HTTP status of the answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def judge(error: Exception) -> Verdict:
    """Whether an error of a request passes (network, overload) or lasts (rights, names, settings)."""
    from botocore.exceptions import ClientError

    text = _text(error)
    if isinstance(error, ClientError):
        status, code = status_of(error), code_of(error)
        passing = (status >= 500 and status != 501) or status in (408, 429) or code in _PASSING_CODES
        # A conflict of two writers passes, a refused condition does not.
        passing |= status == 409 and code.startswith("Concurrent")
        return Verdict(passing, True, f"the server answered {status} {code}", _LATER)
    if not isinstance(error, _passing_types()) or any(mark in text for mark in _CERTIFICATE):
        return Verdict(False, isinstance(error, HvcError), text, "")
    is_reached = isinstance(error, _answer_types())
    return Verdict(True, is_reached, text, _LATER if is_reached else _SERVER)


def explained(verb: str, where: str, error: Exception) -> HvcError:
    """A lasting error of boto3 as one of ours, with the object's name and the next step."""
    from botocore.exceptions import ClientError

    start = f"cannot {verb} {where}:"
    if isinstance(error, ClientError):
        return _answer(start, error)
    return StorageError(f"{start} {_advice(error)}")


def _answer_types() -> tuple[type[Exception], ...]:
    """Errors in the middle of an answer."""
    from botocore.exceptions import IncompleteReadError, ResponseStreamingError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return (IncompleteReadError, ResponseParserError, ResponseStreamingError, HTTPError, TruncatedError)


def _passing_types() -> tuple[type[Exception], ...]:
    from http.client import HTTPException

    from botocore import exceptions

    network = (exceptions.ConnectionError, exceptions.HTTPClientError, HTTPException)
    keys = (exceptions.CredentialRetrievalError, exceptions.MetadataRetrievalError)  # may be remote
    return (*_answer_types(), *network, *keys, ConnectionError, TimeoutError)


def _answer(start: str, error: "ClientError") -> StorageError:
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket":
        return MissingError(f"{start} there is no such bucket; create it, or correct the address")
    if code == "NoSuchKey" or status == 404:
        return MissingError(f"{start} there is no such object")
    if code == "RequestTimeTooSkewed":
        return StorageError(f"{start} this machine's clock and the server's differ; set the clock")
    if status == 403:
        return StorageError(
            f"{start} access denied ({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "(or AWS_PROFILE) and the bucket's policy"
        )
    if status == 412:
        return StorageError(f"{start} it was replaced while it was read; run the same command again")
    message = error.response.get("Error", {}).get("Message") or "no reason given"
    return StorageError(f"{start} the server answered {status} {code} ({message})")


def _advice(error: Exception) -> str:
    from botocore.exceptions import NoCredentialsError, NoRegionError

    if isinstance(error, NoCredentialsError):
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, NoRegionError):
        return "no region; set AWS_DEFAULT_REGION"
    text = _text(error)
    return f"{text}; is AWS_CA_BUNDLE set?" if any(mark in text for mark in _CERTIFICATE) else text


def _text(error: Exception) -> str:
    """The error's own words, without the query of an address: it may hold a signature."""
    said = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    text = re.sub(r"\?[^\s\"']*", "", said).strip() or type(error).__name__
    return text.rstrip(".")
