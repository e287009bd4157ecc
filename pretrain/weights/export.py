"""A trunk into a file for others: ours (`.safetensors`), or the official code's (`.pth`)."""

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import sha256_file
from hvc.pretrain.model.architecture import is_import_path
from hvc.pretrain.weights.encoder_file import EncoderMetadata, metadata_of, write_encoder

FORMATS = (".safetensors", ".pth")


def export(
    state: dict[str, Tensor], metadata: EncoderMetadata, path: Path, *, force: bool = False
) -> dict[str, Any]:
    """Write a trunk to `path`, whole or not at all; answers what was written.

    `.pth` is the official code's converted layout: an OrderedDict of the trunk's tensors, BatchNorm
    buffers and layer4 included. UsageError for another ending, for a file that exists (unless `force`),
    and for a trunk that this layout cannot describe.
    """
    need_destination(path, force)
    if path.suffix == ".pth":
        _refuse_untold(path, metadata)
    _write(path, lambda temporary: _save(temporary, path.suffix, state, metadata))
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "architecture": metadata.architecture,
        "tensors": len(state),
        "step": metadata.step,
    }


def need_destination(path: Path, force: bool, formats: tuple[str, ...] = FORMATS) -> None:
    """UsageError unless something can be written there, as far as its name tells."""
    if path.suffix not in formats:
        raise UsageError(f"{path}: its ending decides the format; write {' or '.join(formats)}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if path.exists() and not force:
        raise UsageError(f"{path} exists; --force replaces it")


def import_destination(path: Path) -> Path:
    """Where an imported file goes by default: `moco.pth.tar` becomes `moco.safetensors` beside it."""
    name = path.name
    for ending in (".tar", ".pth", ".pt", ".bin", ".ckpt", ".safetensors"):
        name = name.removesuffix(ending)
    destination = path.with_name(f"{name}.safetensors")
    if destination == path:
        raise UsageError(f"{path} would be replaced by what is read from it; name an OUTPUT")
    return destination


def _refuse_untold(path: Path, metadata: EncoderMetadata) -> None:
    """The official layout is tensors alone; its reader assumes the rest."""
    if is_import_path(metadata.architecture):
        raise UsageError(
            f"{path}: the official code knows ResNets only, not {metadata.architecture}; write .safetensors"
        )
    usual = metadata_of(metadata.architecture, 0)
    for name in ("stride_1_layers", "padding", "mean", "std"):
        own, assumed = getattr(metadata, name), getattr(usual, name)
        if own != assumed:
            raise UsageError(
                f"{path}: the official layout cannot say that {name} is {own}, and its reader would take "
                f"{assumed}; write .safetensors"
            )


def _save(path: Path, suffix: str, state: dict[str, Tensor], metadata: EncoderMetadata) -> None:
    if suffix == ".pth":
        tensors = OrderedDict((key, value.detach().cpu()) for key, value in state.items())
        with path.open("wb") as file:  # given a path, torch would write the temporary name into it
            torch.save(tensors, file)
    else:
        write_encoder(path, state, metadata)


def _write(path: Path, save: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise HvcError(f"cannot write {path}: {error}; free space or choose another") from None
    finally:
        temporary.unlink(missing_ok=True)
