"""The HTTP below boto3, made strict: an answer whose head was cut is an error.

Python's HTTP client takes the end of the connection for the end of the head. A lost line, or half a
number in one, would pass for what the server said. Imported when boto3 is (it costs time).
"""

from http.client import HTTPResponse
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.httpsession import URLLib3Session


class CutHeadError(ConnectionResetError):
    """The connection ended within the head of an answer."""


class _Lines:
    """The connection's file while the head is read: remembers the last line."""

    def __init__(self, file: Any) -> None:
        self.file, self.last = file, b""

    def readline(self, *limit: int) -> bytes:
        self.last = self.file.readline(*limit)
        return self.last

    def close(self) -> None:
        self.file.close()


class _Response(HTTPResponse):
    fp: Any

    def begin(self) -> None:
        lines = self.fp = _Lines(self.fp)
        try:
            super().begin()
        finally:
            if self.fp is lines:  # None where there is no body to come
                self.fp = lines.file
        if lines.last not in (b"\r\n", b"\n"):
            raise CutHeadError("the connection ended within the head of the answer")


class _Connection(AWSHTTPConnection):
    response_class = _Response  # type: ignore[assignment]  # the stubs name one that is made for `Expect`


class _TlsConnection(AWSHTTPSConnection):
    response_class = _Response  # type: ignore[assignment]  # the stubs name one that is made for `Expect`


class _Pool(AWSHTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Transport(URLLib3Session):
    """boto3's own HTTP layer (TLS, proxies, time-outs) with strict connections."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        pools: dict[str, Any] = vars(self)["_pool_classes_by_scheme"]
        pools.update(http=_Pool, https=_TlsPool)
