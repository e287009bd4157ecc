"""Connections to an S3 server: boto3's client, and a light way to read ranges beside it."""

import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from hvc.base.errors import UsageError
from hvc.base.s3_errors import TruncatedError, status_of

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_s3.client import S3Client

    from hvc.base.s3_transport import Transport

POOL = 32
"""Connections that are kept, so threads that can work at once without making new ones."""
_URL_LIFE = 3600
_URL_USE = 600.0
"""Seconds that a signed address is used, well below the seconds that it is valid."""
_URLS = 4096

_connections: dict[tuple[object, ...], "Connection"] = {}
# Making clients is not thread-safe in boto3; a fork waits, so that no child inherits the lock locked.
_lock = threading.RLock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Connection(NamedTuple):
    """What one process (threads included) needs to talk to the server."""

    client: "S3Client"
    http: "Transport"
    urls: dict[tuple[str, str], tuple[str, float]]
    """(bucket, key) -> signed address and the time after which it is not used again."""


def seconds_from(variable: str, default: float) -> float:
    """A number of seconds out of the environment; UsageError if it is none above zero."""
    text = os.environ.get(variable, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{variable}={text}: expected seconds above 0")
    return value


def endpoint() -> str:
    """The server that the environment names, "" for AWS itself (or a profile's own)."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")


def connect() -> Connection:
    """The connection of this process to the server that the environment names.

    HVC_S3_TIMEOUT (30 s) bounds each wait for bytes.
    """
    names = sorted(name for name in os.environ if name.startswith(("AWS_", "HVC_S3_")))
    key = (os.getpid(), *(f"{name}={os.environ[name]}" for name in names))
    with _lock:
        if key not in _connections:
            _connections.clear()  # another environment, or the parent's from before a fork
            _connections[key] = _new_connection()
        return _connections[key]


def _new_connection() -> Connection:
    import boto3.session
    import botocore.session
    from botocore.utils import get_environ_proxies

    from hvc.base.s3_transport import Transport

    timeout = seconds_from("HVC_S3_TIMEOUT", 30)
    core = botocore.session.get_session()
    try:
        client = boto3.session.Session(botocore_session=core).client("s3", config=_config(timeout))
    except ValueError as error:  # what the environment says is no address
        raise UsageError(
            f"S3: {str(error).rstrip('.')}; correct AWS_ENDPOINT_URL_S3 (as in https://s3.example.org) or "
            "AWS_DEFAULT_REGION"
        ) from None
    http = Transport(
        verify=core.get_config_variable("ca_bundle") or True,
        proxies=get_environ_proxies(client.meta.endpoint_url),
        timeout=(min(timeout, 10), timeout),
        max_pool_connections=POOL,
    )
    client.meta.events.register_last("before-call.s3", _no_expect)
    client.meta.events.register("before-send.s3", lambda request, **_: http.send(request))  # type: ignore[arg-type]  # the stubs know no answering
    return Connection(client, http, {})


def _no_expect(params: dict[str, Any], **_: object) -> None:
    """Send bodies at once: boto3 would wait for leave, for ever where the connection ends meanwhile."""
    params["headers"].pop("Expect", None)


def s3_client() -> "S3Client":
    """A boto3 client with bounded waiting and without retries of its own."""
    return connect().client


def _config(timeout: float) -> "Config":
    from botocore.config import Config

    return Config(
        connect_timeout=min(timeout, 10),
        read_timeout=timeout,
        max_pool_connections=POOL,
        tcp_keepalive=True,
        retries={"total_max_attempts": 1, "mode": "standard"},  # `retry` does it, and its time adds up
        signature_version="s3v4",
        # The server checks the sha256 of all that arrives. Checksum trailers only where one demands
        # them: many servers refuse them.
        s3={
            "addressing_style": "path" if endpoint() else "auto",
            "payload_signing_enabled": True,
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def get_range(
    connection: Connection, bucket: str, key: str, offset: int, length: int, etag: str = ""
) -> bytes:
    """One attempt at the bytes from `offset`; fewer than `length` only where the object ends.

    With `etag` only of that version of the object.

    boto3 spends one to two milliseconds of CPU on a request. An address that boto3 signed before,
    fetched by boto3's own HTTP layer, costs a third of that, and threads wait less for each other.
    Whatever is not a plain success is asked again by the client itself, which knows its errors.
    """
    from botocore.exceptions import ClientError

    span = f"bytes={offset}-{offset + length - 1}"
    condition: dict[str, Any] = {"IfMatch": etag} if etag else {}
    answer = _get_signed(connection, bucket, key, {"Range": span, **({"If-Match": etag} if etag else {})})
    if answer is None:
        try:
            given = connection.client.get_object(Bucket=bucket, Key=key, Range=span, **condition)
        except ClientError as error:
            if status_of(error) == 416:  # nothing there; some servers say so where only the end is missing
                return b""
            raise
        answer = given["Body"].read(), given.get("ContentRange", "")
    data, place = answer
    if not place:  # a server without ranges sent the whole object
        return data[offset : offset + length]
    _check(data, place, offset, length)
    return data


def _get_signed(
    connection: Connection, bucket: str, key: str, headers: dict[str, str]
) -> tuple[bytes, str] | None:
    """The body and its Content-Range; None when the answer is not of that kind."""
    from botocore.awsrequest import AWSRequest

    request = AWSRequest("GET", _signed(connection, bucket, key), headers, stream_output=True)
    answer = connection.http.send(request.prepare())
    place = str(answer.headers.get("content-range", ""))
    if answer.status_code != 206 or not place:
        answer.raw.close()
        return None
    return answer.raw.read(), place


def _signed(connection: Connection, bucket: str, key: str) -> str:
    now = time.monotonic()
    url, end = connection.urls.get((bucket, key), ("", 0.0))
    if now >= end:
        url = connection.client.generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=_URL_LIFE
        )
        if len(connection.urls) >= _URLS:
            connection.urls.clear()
        connection.urls[bucket, key] = url, now + _URL_USE
    return url


def _check(data: bytes, content_range: str, offset: int, length: int) -> None:
    """Compare what came with what was asked: `bytes FIRST-LAST/TOTAL`."""
    total = content_range.rpartition("/")[2]
    expected = min(length, int(total) - offset) if total.isdigit() else length
    if len(data) != expected or not content_range.startswith(f"bytes {offset}-"):
        raise TruncatedError(f"{len(data)} of {expected} bytes came (range {content_range!r})")
