"""`encoder.safetensors`: the online trunk as others read it, with neither DeepSpeed nor pickle.

All layers, torchvision's key names; what evaluation must know stands in the metadata under `hvc`.
"""

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hvc.base.config import Config
from hvc.base.errors import HvcError
from hvc.pretrain.data.views import STATISTICS
from hvc.pretrain.model.architecture import STRIDE_1_LAYERS, Architecture, Layer, Padding, is_import_path

ENCODER_VERSION = 2
"""2 added padding, source_kind, source_sha256, and import paths as architecture."""
_KEY = "hvc"
_SHOWN = 5


class EncoderMetadata(Config):
    """What a trunk file says of itself; evaluation obeys it."""

    version: int = ENCODER_VERSION
    architecture: Architecture
    stride_1_layers: tuple[Layer, ...]
    mean: tuple[float, float, float]
    """Per-channel mean of RGB in [0, 1] that images are normalised with before the trunk."""
    std: tuple[float, float, float]
    step: int
    """Optimiser steps of training behind these weights; 0 where unknown."""
    recipe_digest: str = ""
    padding: Padding = "zeros"
    """How convolutions fill the border."""
    source_kind: str = ""
    """Whose file the weights were imported from; empty for a run of ours."""
    source_sha256: str = ""
    """sha256 of that file (hex)."""


def metadata_of(architecture: Architecture, step: int, recipe_digest: str = "") -> EncoderMetadata:
    """Of a trunk of ours; as officially, tracking uses ImageNet's statistics whatever training used."""
    mean, std = STATISTICS["imagenet"]
    layers = () if is_import_path(architecture) else STRIDE_1_LAYERS
    return EncoderMetadata(
        architecture=architecture,
        stride_1_layers=layers,
        mean=mean,
        std=std,
        step=step,
        recipe_digest=recipe_digest,
    )


def header(metadata: EncoderMetadata) -> dict[str, str]:
    """What stands in the file's head beside the tensors."""
    return {_KEY: metadata.model_dump_json(), "format": "pt"}


def write_encoder(path: Path, state: dict[str, Tensor], metadata: EncoderMetadata) -> None:
    """Write the trunk's state dict (fp32, buffers included)."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(tensors, path, header(metadata))


def read_encoder(path: Path) -> tuple[dict[str, Tensor], EncoderMetadata]:
    """State dict and metadata; HvcError when the file is missing, damaged or not a trunk of ours."""
    state, metadata = read_safetensors(path)
    if metadata is None:
        raise HvcError(
            f"{path}: a safetensors file, but not an encoder written by hvc; `hvc import {path}` makes "
            "one of a ResNet's weights"
        )
    return state, metadata


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], EncoderMetadata | None]:
    """Tensors of any safetensors file, and our metadata where it has some; HvcError as `read_encoder`."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is not None:
                _refuse_newer(path, text)
            metadata = None if text is None else EncoderMetadata.model_validate_json(text)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise HvcError(f"no such file: {path}") from None
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise HvcError(f"{path}: not a readable safetensors file ({error}); copy it again") from None
    except ValidationError as error:
        raise HvcError(f"{path}: its metadata does not fit this version of hvc: {error}") from None
    return state, metadata


def _refuse_newer(path: Path, text: str) -> None:
    # Before the fields are looked at: a newer version may have others.
    try:
        version = json.loads(text)["version"]
    except (ValueError, TypeError, KeyError):
        return
    if isinstance(version, int) and version > ENCODER_VERSION:
        raise HvcError(f"{path}: encoder version {version} is newer than this hvc; update it")


def check_state(path: Path, name: str, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise HvcError that names what is missing, unknown, misshapen or not finite in a trunk's state.

    Args:
        path: the file, for the message.
        name: the architecture, for the message.
        state: what the file holds.
        expected: a state dict with the right keys and shapes (its values do not matter).
    """
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    start = f"{path} is not a complete {name} trunk:"
    if missing:
        raise HvcError(
            f"{start} {len(missing)} tensors are missing, e.g. {_some(missing)}; get the file anew"
        )
    if unknown:
        raise HvcError(f"{start} it holds {len(unknown)} tensors of something else, e.g. {_some(unknown)}")
    for key, tensor in state.items():  # shapes first: they are cheap to know and may be absurd
        if tensor.shape != expected[key].shape:
            found, wanted = list(tensor.shape), list(expected[key].shape)
            raise HvcError(f"{start} {key} has shape {found}, expected {wanted}")
    for key, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise HvcError(f"{path}: {key} holds NaN or infinity (training diverged); take an earlier step")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN])
