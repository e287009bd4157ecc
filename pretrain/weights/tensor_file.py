"""safetensors files in one pass: hashed while they are written, no tensor held twice.

The library's own writer would need a second pass for the hash. Writing and hashing pieces of some MiB
lets go of the interpreter, so a training step beside it hardly notices.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hvc.base.store import StorageError

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PIECE = 4 << 20


class FileNote(BaseModel):
    """What a file must be."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def note_of(data: bytes) -> FileNote:
    """The note of a file that holds `data`."""
    return FileNote(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> FileNote:
    """Write tensors of the CPU, flushed to the disk; StorageError names the file when that fails.

    The same tensors and metadata give the same bytes, whatever the order of the keys.
    """
    # Widest first, as the library orders them: every tensor starts at a multiple of its item size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    ordered = {name: tensors[name] for name in names}
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("wb") as file:
            for piece in _pieces(ordered, metadata):
                file.write(piece)
                digest.update(piece)
                size += len(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}; free some space or choose another disk"
        ) from None
    return FileNote(bytes=size, sha256=digest.hexdigest())


def _pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    head = _head(tensors, metadata)
    yield len(head).to_bytes(8, "little")
    yield head
    for tensor in tensors.values():
        # One after the other: a channels-last weight is put in order here, and let go of again.
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        for at in range(0, len(raw), _PIECE):
            yield raw[at : at + _PIECE]


def _head(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    table: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * tensor.element_size()
        table[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(table, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
