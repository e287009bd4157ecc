"""Where bytes live: a folder or `s3://bucket/prefix`, opened by address.

Credentials come from boto3's ordinary chain only; `AWS_ENDPOINT_URL_S3` points at other servers.
"""

import hashlib
import os
from pathlib import Path

from hvc.base.errors import UsageError
from hvc.base.folder_store import FolderStore
from hvc.base.s3_store import S3Store, s3_client
from hvc.base.store import AlreadyExistsError, MissingError, StorageError, Store, Stored, safe_name

__all__ = [
    "AlreadyExistsError",
    "FolderStore",
    "MissingError",
    "S3Store",
    "StorageError",
    "Store",
    "Stored",
    "open_store",
    "s3_client",
    "safe_name",
    "sha256_file",
]


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
