"""Where bytes live: a folder or `s3://bucket/prefix`, behind the same few operations.

Every write is atomic (a reader sees the whole object or none) and every error names the object.
Credentials come from boto3's ordinary chain only; `AWS_ENDPOINT_URL_S3` points at other servers.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from hvc.base.errors import HvcError, UsageError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_CHUNK = 1 << 20
_MULTIPART_BYTES = 64 << 20


class StorageError(HvcError):
    """An object or folder could not be read or written."""


class AlreadyExistsError(StorageError):
    """`create` found that somebody else already wrote the object."""


class MissingError(StorageError):
    """The object, folder or bucket is not there."""


class Store(Protocol):
    """One folder of objects; names are relative, with `/`."""

    address: str

    def where(self, name: str) -> str:
        """Full address of an object, for messages and records."""
        ...

    def exists(self, name: str) -> bool:
        """Whether the object is there (a store that cannot be asked raises)."""
        ...

    def size(self, name: str) -> int:
        """Size in bytes."""
        ...

    def read(self, name: str) -> bytes:
        """The whole object."""
        ...

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` (fewer only at the end of the object)."""
        ...

    def fetch(self, name: str, target: BinaryIO) -> None:
        """Copy the object into an open file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the object, whole or not at all."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write the object if it is not there yet; else raise AlreadyExistsError."""
        ...

    def upload(self, name: str, path: Path) -> None:
        """Move a finished local file to the object (the local file is gone afterwards)."""
        ...

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names of all objects below the prefix, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Remove the object; no error when it is not there."""
        ...


def open_store(address: str | os.PathLike[str]) -> Store:
    """The store at a folder path or `s3://bucket[/prefix]`."""
    text = os.fspath(address)
    if text.startswith("s3://"):
        return S3Store(text)
    if "://" in text:
        raise UsageError(f"{text}: only folders and s3://bucket/prefix are supported")
    return FolderStore(Path(text))


def sha256_file(path: Path) -> str:
    """Hex sha256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(name: str) -> str:
    """The name itself, or UsageError if it could leave its folder (`..`, absolute, empty)."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise UsageError(f"unsafe object name {name!r}")
    return name


class FolderStore:
    """A folder on a local or shared file system."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self.address = str(self._folder)

    def where(self, name: str) -> str:
        return str(self._path(name))

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def size(self, name: str) -> int:
        try:
            return self._path(name).stat().st_size
        except OSError as error:
            raise _os_error("read", self.where(name), error) from None

    def read(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            raise _os_error("read", self.where(name), error) from None

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        try:
            with self._path(name).open("rb") as file:
                return os.pread(file.fileno(), length, offset)
        except OSError as error:
            raise _os_error("read", self.where(name), error) from None

    def fetch(self, name: str, target: BinaryIO) -> None:
        try:
            with self._path(name).open("rb") as file:
                shutil.copyfileobj(file, target, _CHUNK)
        except OSError as error:
            raise _os_error("copy", self.where(name), error) from None

    def write(self, name: str, data: bytes) -> None:
        temporary = self._temporary(name, data)
        try:
            temporary.replace(self._path(name))
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _os_error("write", self.where(name), error) from None

    def create(self, name: str, data: bytes) -> None:
        temporary = self._temporary(name, data)
        try:
            os.link(temporary, self._path(name))  # fails if the name is taken, unlike rename
        except FileExistsError:
            raise AlreadyExistsError(f"{self.where(name)} is already there") from None
        except OSError as error:
            raise _os_error("write", self.where(name), error) from None
        finally:
            temporary.unlink(missing_ok=True)

    def upload(self, name: str, path: Path) -> None:
        target = self._path(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.stat().st_dev == target.parent.stat().st_dev:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                path.replace(target)
                return
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with path.open("rb") as source, temporary.open("wb") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
                    sink.flush()
                    os.fsync(sink.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            path.unlink()
        except OSError as error:
            raise _os_error("write", self.where(name), error) from None

    def names(self, prefix: str = "") -> Iterator[str]:
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if path.is_file() and name.startswith(prefix):
                yield name

    def delete(self, name: str) -> None:
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise _os_error("delete", self.where(name), error) from None

    def _path(self, name: str) -> Path:
        return self._folder / safe_name(name)

    def _temporary(self, name: str, data: bytes) -> Path:
        target = self._path(name)
        path: Path | None = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, text = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
            path = Path(text)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            path.chmod(0o644)
        except OSError as error:
            if path is not None:
                path.unlink(missing_ok=True)
            raise _os_error("write", self.where(name), error) from None
        return path


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


def _os_error(verb: str, where: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError):
        return MissingError(f"cannot {verb} {where}: there is no such file")
    advice = {28: "; free some space or choose another disk", 13: "; check the permissions"}
    return StorageError(f"cannot {verb} {where}: {error.strerror}{advice.get(error.errno or 0, '')}")
