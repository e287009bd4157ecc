"""Files of `torch.save`, read without running code from them: tensors and plain values only.

Of Python's own classes only `argparse.Namespace` is let in: official checkpoints hold their command line.
"""

import argparse
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from hvc.base.errors import HvcError

LARGEST = 8 * 2**30
"""Bytes; a training checkpoint of a ResNet-50 with its optimiser has under 1 GB."""
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_HEADER = 8  # of safetensors: the length of the JSON that follows


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do (a length, then JSON); HvcError if it cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER + 1)
    except FileNotFoundError:
        raise HvcError(f"no such file: {path}") from None
    except OSError as error:
        raise HvcError(f"cannot read {path}: {error.strerror}; give a file of weights") from None
    if len(start) <= _HEADER or start[_HEADER:] != b"{":
        return False
    return struct.unpack("<Q", start[:_HEADER])[0] < path.stat().st_size


def refuse_absurd(path: Path) -> None:
    """HvcError for a file that is empty, or that is or unpacks to more than `LARGEST`."""
    size = path.stat().st_size
    if size == 0:
        raise HvcError(f"{path} is empty; copy it again")
    size = max(size, _unpacked(path))
    if size > LARGEST:
        raise HvcError(
            f"{path} holds {size / 2**30:.1f} GB, more than any checkpoint of a ResNet; name the file of "
            "weights itself"
        )


def _unpacked(path: Path) -> int:
    """Bytes in an archive; 0 for a file that is none."""
    try:
        if not zipfile.is_zipfile(path):
            return 0
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except Exception as error:  # noqa: BLE001 - damaged bytes fail in many ways
        raise _damaged(path, error) from None


def load_torch(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU; HvcError when damaged or when reading it could run code."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _GLOBAL.search(str(error))
        if wanted is None:
            raise HvcError(f"{path}: not a file that torch.save wrote, or damaged; copy it again") from None
        raise HvcError(
            f"{path} asks for {wanted[1]} to be read, and a file that names code could run it; refused. If "
            "you trust it, save its state dict alone where its own project is installed, then import that"
        ) from None
    except Exception as error:  # noqa: BLE001 - damaged bytes fail in many ways
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> HvcError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return HvcError(f"{path}: damaged, or no file of torch.save ({reason}); copy it again")
