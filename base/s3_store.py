"""A prefix in an S3 bucket, as a store of objects; boto3 is imported when it is first needed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hvc.base.errors import HvcError, UsageError
from hvc.base.store import AlreadyExistsError, MissingError, StorageError, safe_name

if TYPE_CHECKING:
    from botocore.exceptions import ClientError as ClientErrorType
    from mypy_boto3_s3.client import S3Client

_MULTIPART_BYTES = 64 << 20


class S3Store:
    """A prefix in an S3 bucket (AWS, Ceph RGW, MinIO-like)."""

    def __init__(self, address: str) -> None:
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        if not bucket:
            raise UsageError(f"{address}: write it as s3://bucket/prefix")
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.address = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._client: S3Client | None = None
        self._client_pid = 0

    def where(self, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(name)}"

    def exists(self, name: str) -> bool:
        try:
            self.size(name)
        except MissingError:
            return False
        return True

    def size(self, name: str) -> int:
        with _S3Errors("read", self.where(name)):
            return self._s3().head_object(Bucket=self._bucket, Key=self._key(name))["ContentLength"]

    def read(self, name: str) -> bytes:
        with _S3Errors("read", self.where(name)):
            answer = self._s3().get_object(Bucket=self._bucket, Key=self._key(name))
            return answer["Body"].read()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        if length == 0:
            return b""
        with _S3Errors("read", self.where(name)):
            answer = self._s3().get_object(
                Bucket=self._bucket, Key=self._key(name), Range=f"bytes={offset}-{offset + length - 1}"
            )
            return answer["Body"].read()

    def fetch(self, name: str, target: BinaryIO) -> None:
        with _S3Errors("read", self.where(name)):
            self._s3().download_fileobj(self._bucket, self._key(name), target)

    def write(self, name: str, data: bytes) -> None:
        with _S3Errors("write", self.where(name)):
            self._s3().put_object(Bucket=self._bucket, Key=self._key(name), Body=data)

    def create(self, name: str, data: bytes) -> None:
        from botocore.exceptions import ClientError

        with _S3Errors("write", self.where(name)):
            try:
                self._s3().put_object(Bucket=self._bucket, Key=self._key(name), Body=data, IfNoneMatch="*")
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status in (409, 412):
                    raise AlreadyExistsError(f"{self.where(name)} is already there") from None
                if status != 501:
                    raise
                # A server without conditional writes: look first. Two writers at the same instant
                # would both pass; shards carry content hashes, so the loser is found by `verify`.
                if self.exists(name):
                    raise AlreadyExistsError(f"{self.where(name)} is already there") from None
                self._s3().put_object(Bucket=self._bucket, Key=self._key(name), Body=data)

    def upload(self, name: str, path: Path) -> None:
        from boto3.s3.transfer import TransferConfig

        size = path.stat().st_size
        config = TransferConfig(multipart_threshold=_MULTIPART_BYTES, multipart_chunksize=_MULTIPART_BYTES)
        with _S3Errors("write", self.where(name)):
            self._s3().upload_file(str(path), self._bucket, self._key(name), Config=config)
        stored = self.size(name)
        if stored != size:
            raise StorageError(
                f"{self.where(name)}: {stored} bytes arrived of {size}; run the same command again"
            )
        path.unlink()

    def names(self, prefix: str = "") -> Iterator[str]:
        with _S3Errors("list", f"s3://{self._bucket}/{self._prefix}{prefix}"):
            pages = self._s3().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(self._prefix)

    def delete(self, name: str) -> None:
        with _S3Errors("delete", self.where(name)):
            self._s3().delete_object(Bucket=self._bucket, Key=self._key(name))

    def _key(self, name: str) -> str:
        return self._prefix + safe_name(name)

    def _s3(self) -> "S3Client":
        if self._client is None or self._client_pid != os.getpid():  # a client does not survive fork
            self._client, self._client_pid = s3_client(), os.getpid()
        return self._client

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_client": None}


def s3_client() -> "S3Client":
    """A boto3 client with bounded waiting; checksum trailers only where a server demands them."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"total_max_attempts": 5, "mode": "standard"},
            s3={"addressing_style": "path" if os.environ.get("AWS_ENDPOINT_URL_S3") else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class _S3Errors:
    """Turns boto3's exceptions into ours, with the object's name and the next step."""

    def __init__(self, verb: str, where: str) -> None:
        self._verb, self._where = verb, where

    def __enter__(self) -> None: ...

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, HvcError):
            return
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, ClientError):
            error = error.__context__
        if isinstance(error, ClientError):
            raise self._client_error(error) from None
        if isinstance(error, BotoCoreError | S3UploadFailedError):
            raise StorageError(f"cannot {self._verb} {self._where}: {self._advice(error)}") from None

    def _client_error(self, error: "ClientErrorType") -> StorageError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        start = f"cannot {self._verb} {self._where}:"
        if code == "NoSuchBucket":
            return MissingError(f"{start} there is no such bucket; create it, or correct the address")
        if code in ("NoSuchKey", "404") or status == 404:
            return MissingError(f"{start} there is no such object")
        if status == 403:
            return StorageError(
                f"{start} access denied ({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
                "(or AWS_PROFILE) and the bucket's policy"
            )
        return StorageError(f"{start} the server answered {status} {code}: {error}")

    @staticmethod
    def _advice(error: Exception) -> str:
        from botocore.exceptions import EndpointConnectionError, NoCredentialsError, NoRegionError

        if isinstance(error, NoCredentialsError):
            return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        if isinstance(error, EndpointConnectionError):
            return f"{error} Is the server up, and AWS_ENDPOINT_URL_S3 right?"
        if isinstance(error, NoRegionError):
            return "no region; set AWS_DEFAULT_REGION"
        return str(error)


if TYPE_CHECKING:
    from botocore.exceptions import ClientError as ClientErrorType
