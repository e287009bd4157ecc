"""Files go to S3: in one request where the size allows it, else in parts.

Every request's signature covers the sha256 of its bytes, so the server refuses what was altered on
the way, and it is sent again.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from hvc.base.s3_errors import code_of
from hvc.base.store import StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

T = TypeVar("T")

ONE_REQUEST_BYTES = 64 << 20
"""Files up to this size go in one request."""
PART_BYTES = 8 << 20
_MOST_PARTS = 10_000
_THREADS = 8  # parts on the way at once; with their size it bounds the memory
_ABORT_PATIENCE = 5.0

_log = logging.getLogger(__name__)


class Attempt(Protocol):
    """Runs one request of an object's upload, and again where that may help."""

    def __call__(self, request: Callable[[], T], /, patience: float | None = None) -> T:
        """The request's result; StorageError when patience (seconds) is used up."""
        ...


class Upload:
    """One file on its way to one object."""

    def __init__(
        self, client: "S3Client", bucket: str, key: str, metadata: Mapping[str, str], attempt: Attempt
    ) -> None:
        self._client, self._bucket, self._key = client, bucket, key
        self._metadata, self._attempt = dict(metadata), attempt

    def send(self, path: Path) -> None:
        """Send the file; a failure leaves no unfinished upload behind if the server can be told."""
        size = path.stat().st_size
        if size <= ONE_REQUEST_BYTES:
            self._attempt(lambda: self._put(path))
            return
        upload_id = self._attempt(self._begin)
        try:
            self._complete(upload_id, self._send_parts(path, parts_of(size), upload_id))
        except BaseException:
            self._abort(upload_id)
            raise

    def _put(self, path: Path) -> None:
        with path.open("rb") as file:
            self._client.put_object(Bucket=self._bucket, Key=self._key, Body=file, Metadata=self._metadata)

    def _begin(self) -> str:
        answer = self._client.create_multipart_upload(
            Bucket=self._bucket, Key=self._key, Metadata=self._metadata
        )
        return answer["UploadId"]

    def _send_parts(
        self, path: Path, places: list[tuple[int, int]], upload_id: str
    ) -> "list[CompletedPartTypeDef]":
        def send(number: int) -> "CompletedPartTypeDef":
            offset, length = places[number - 1]
            data = _read(path, file.fileno(), offset, length)
            answer = self._attempt(
                lambda: self._client.upload_part(
                    Bucket=self._bucket, Key=self._key, UploadId=upload_id, PartNumber=number, Body=data
                )
            )
            return {"ETag": answer["ETag"], "PartNumber": number}

        with path.open("rb") as file, ThreadPoolExecutor(_THREADS) as pool:
            futures = [pool.submit(send, number) for number in range(1, len(places) + 1)]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _complete(self, upload_id: str, parts: "list[CompletedPartTypeDef]") -> None:
        from botocore.exceptions import ClientError

        answers_lost = 0

        def complete() -> None:
            nonlocal answers_lost
            try:
                self._client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=self._key,
                    UploadId=upload_id,
                    MultipartUpload={"Parts": parts},
                )
            except ClientError as error:
                # Done by an earlier attempt whose answer got lost; the caller compares what is there.
                if not (answers_lost and code_of(error) == "NoSuchUpload"):
                    raise
            finally:
                answers_lost += 1

        self._attempt(complete)

    def _abort(self, upload_id: str) -> None:
        abort = partial(_abort, self._client, self._bucket, self._key, upload_id)
        try:
            self._attempt(abort, patience=_ABORT_PATIENCE)
        except StorageError as error:  # the failure that led here is the one to report
            _log.warning("an unfinished upload is left at s3://%s/%s: %s", self._bucket, self._key, error)


def abort_uploads(client: "S3Client", bucket: str, prefix: str, attempt: Attempt) -> int:
    """Remove all unfinished uploads of keys that begin with `prefix`; gives their number."""
    found = list(_unfinished(client, bucket, prefix, attempt))
    for key, upload_id in found:
        attempt(partial(_abort, client, bucket, key, upload_id))
    return len(found)


def _unfinished(
    client: "S3Client", bucket: str, prefix: str, attempt: Attempt
) -> Iterator[tuple[str, str]]:
    after: dict[str, str] = {}
    while True:
        page = attempt(
            partial(client.list_multipart_uploads, Bucket=bucket, Prefix=prefix, **after)  # type: ignore[arg-type]
        )
        for item in page.get("Uploads", []):
            yield item["Key"], item["UploadId"]
        if not page.get("IsTruncated"):
            return
        after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _abort(client: "S3Client", bucket: str, key: str, upload_id: str) -> None:
    from botocore.exceptions import ClientError

    try:
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    except ClientError as error:
        if code_of(error) != "NoSuchUpload":  # it ended meanwhile, or an answer got lost
            raise


def parts_of(size: int) -> list[tuple[int, int]]:
    """(offset, length) of the parts of `size` bytes: equal but for the last, 10,000 at most."""
    length = max(PART_BYTES, -(-size // _MOST_PARTS))
    return [(offset, min(length, size - offset)) for offset in range(0, size, length)]


def _read(path: Path, descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise StorageError(f"cannot upload {path}: it became shorter meanwhile")
    return data
