"""`encoder.safetensors`: the online trunk as others read it, with neither DeepSpeed nor pickle.

All layers, torchvision's key names; what evaluation must know stands in the metadata under `hvc`.
"""

import json
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hvc.base.config import Config
from hvc.base.errors import HvcError
from hvc.pretrain.architecture import Architecture, Layer

ENCODER_VERSION = 1
_KEY = "hvc"


class EncoderMetadata(Config):
    """What a trunk file says of itself; evaluation obeys it."""

    version: int = ENCODER_VERSION
    architecture: Architecture
    stride_1_layers: tuple[Layer, ...]
    mean: tuple[float, float, float]
    """Per-channel mean of RGB in [0, 1] that images are normalised with before the trunk."""
    std: tuple[float, float, float]
    step: int
    """Optimiser steps of training behind these weights."""
    recipe_digest: str = ""


def write_encoder(path: Path, state: dict[str, Tensor], metadata: EncoderMetadata) -> None:
    """Write the trunk's state dict (fp32, buffers included)."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    save_file(tensors, path, {_KEY: metadata.model_dump_json(), "format": "pt"})


def read_encoder(path: Path) -> tuple[dict[str, Tensor], EncoderMetadata]:
    """State dict and metadata; HvcError when the file is missing, damaged or not a trunk of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            if text is None:
                raise HvcError(f"{path}: a safetensors file, but not an encoder written by hvc")
            _refuse_newer(path, text)
            metadata = EncoderMetadata.model_validate_json(text)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise HvcError(f"no such file: {path}") from None
    except (SafetensorError, OSError) as error:
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
