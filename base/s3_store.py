"""A prefix in an S3 bucket, as a store of objects; boto3 is imported when it is first needed.

Every request is tried again while its failure may pass, see `retry`.
"""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from hvc.base.errors import UsageError
from hvc.base.retry import Retrier
from hvc.base.s3_client import Connection, connect, endpoint, get_range, s3_client, seconds_from
from hvc.base.s3_create import Creation
from hvc.base.s3_errors import explained, judge
from hvc.base.s3_upload import Upload, abort_uploads
from hvc.base.store import AlreadyExistsError, MissingError, StorageError, Stored, safe_name

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

__all__ = ["S3Store", "s3_client"]

T = TypeVar("T")

_PATIENCE, _FIRST_PATIENCE = 120.0, 5.0
_FETCH_BYTES, _FETCH_THREADS = 16 << 20, 4

_log = logging.getLogger(__name__)


class S3Store:
    """A prefix in an S3 bucket (AWS, Ceph RGW, MinIO-like); threads may share it, forks too.

    Outages are waited for up to HVC_S3_PATIENCE seconds (120) per request, but only a few seconds
    before the server has answered for the first time.
    """

    def __init__(self, address: str) -> None:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if not bucket:
            raise UsageError(f"{address}: write it as s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.address = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._retrier = Retrier(seconds_from("HVC_S3_PATIENCE", _PATIENCE), _FIRST_PATIENCE, endpoint())
        self._connection: Connection | None = None
        self._pid = 0

    @property
    def retries(self) -> int:
        return self._retrier.retries

    def where(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except MissingError:
            return False
        return True

    def size(self, name: str) -> int:
        return self.stored(name).size

    def stored(self, name: str) -> Stored:
        key, where = self._key(name), self.where(name)
        answer = self._try("read", where, lambda: self._client().head_object(Bucket=self._bucket, Key=key))
        return Stored(answer["ContentLength"], answer.get("Metadata", {}).get("sha256"))

    def read(self, name: str) -> bytes:
        key, where = self._key(name), self.where(name)
        return self._try(
            "read", where, lambda: self._client().get_object(Bucket=self._bucket, Key=key)["Body"].read()
        )

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self._range(name, offset, length) if length else b""

    def fetch(self, name: str, target: BinaryIO) -> None:
        size, etag = self._version(name)
        places = [(at, min(_FETCH_BYTES, size - at)) for at in range(0, size, _FETCH_BYTES)]
        waiting: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(_FETCH_THREADS) as pool:
            try:
                for place in places:
                    waiting.append(pool.submit(self._range, name, *place, etag))
                    if len(waiting) == _FETCH_THREADS:
                        target.write(waiting.popleft().result())
                while waiting:
                    target.write(waiting.popleft().result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def write(self, name: str, data: bytes) -> None:
        key, where = self._key(name), self.where(name)
        self._try(
            "write", where, lambda: self._client().put_object(Bucket=self._bucket, Key=key, Body=data)
        )

    def create(self, name: str, data: bytes) -> None:
        where = self.where(name)
        creation = Creation(self._client(), self._bucket, self._key(name), data)
        if not self._try("write", where, creation.attempt):
            raise AlreadyExistsError(f"{where} is already there")

    def upload(self, name: str, path: Path, sha256: str | None = None) -> None:
        where, size = self.where(name), path.stat().st_size
        attempt = partial(self._try, "write", where)
        metadata = {"sha256": sha256} if sha256 else {}
        Upload(self._client(), self._bucket, self._key(name), metadata, attempt).send(path)
        stored = self.stored(name)
        if stored != Stored(size, sha256):
            raise StorageError(
                f"{where}: {stored} is there, not the {size} bytes (sha256 {sha256}) that were sent; "
                "does somebody else write there? Run the same command again"
            )
        path.unlink()

    def names(self, prefix: str = "") -> Iterator[str]:
        return (name for name, _ in self.entries(prefix))

    def entries(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        start, token = self._prefix + prefix, ""
        where = f"s3://{self._bucket}/{start}"
        while True:
            page = self._try("list", where, partial(self._page, start, token))
            for item in page.get("Contents", []):
                yield item["Key"].removeprefix(self._prefix), item["Size"]
            token = page.get("NextContinuationToken", "")
            if not token:
                return

    def abort_uploads(self, prefix: str = "") -> int:
        where = f"s3://{self._bucket}/{self._prefix}{prefix}"
        attempt = partial(self._try, "list unfinished uploads of", where)
        try:
            return abort_uploads(self._client(), self._bucket, self._prefix + prefix, attempt)
        except StorageError as error:
            _log.warning("%s; if the store's bill shows any, remove them by a lifecycle rule", error)
            return 0

    def delete(self, name: str) -> None:
        key, where = self._key(name), self.where(name)
        self._try("delete", where, lambda: self._client().delete_object(Bucket=self._bucket, Key=key))

    def _key(self, name: str) -> str:
        return self._prefix + safe_name(name)

    def _page(self, start: str, token: str) -> "ListObjectsV2OutputTypeDef":
        if not token:
            return self._client().list_objects_v2(Bucket=self._bucket, Prefix=start)
        return self._client().list_objects_v2(Bucket=self._bucket, Prefix=start, ContinuationToken=token)

    def _version(self, name: str) -> tuple[int, str]:
        key, where = self._key(name), self.where(name)
        answer = self._try("read", where, lambda: self._client().head_object(Bucket=self._bucket, Key=key))
        return answer["ContentLength"], answer["ETag"]

    def _range(self, name: str, offset: int, length: int, etag: str = "") -> bytes:
        """Exactly the bytes asked for; with an ETag only from that version of the object."""
        key, where = self._key(name), self.where(name)
        data = self._try(
            "read", where, lambda: get_range(self._connect(), self._bucket, key, offset, length, etag)
        )
        if len(data) != length:
            raise StorageError(f"cannot read {where}: it ends before byte {offset + length}")
        return data

    def _try(self, verb: str, where: str, request: Callable[[], T], /, patience: float | None = None) -> T:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._retrier.call(f"{verb} {where}", request, judge, patience)
        except (BotoCoreError, ClientError) as error:
            raise explained(verb, where, error) from None

    def _client(self) -> "S3Client":
        return self._connect().client

    def _connect(self) -> Connection:
        if self._connection is None or self._pid != os.getpid():  # connections don't survive a fork
            self._connection, self._pid = connect(), os.getpid()
        return self._connection

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_connection": None}
