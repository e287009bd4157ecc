"""From an image to the feature map that label propagation compares."""

import typing
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.pretrain.architecture import Architecture
from hvc.pretrain.encoder_file import EncoderMetadata, read_encoder
from hvc.pretrain.trunk import Trunk, initialise
from hvc.pretrain.views import STATISTICS

IMAGENET_MEAN, IMAGENET_STD = STATISTICS["imagenet"]


class Extractor(typing.Protocol):
    """Anything that turns images into feature maps; `Encoder` is the one of this project."""

    def features(self, image: NDArray[np.uint8], input_size: int | None) -> Tensor:
        """Uint8 RGB [H, W, 3] -> [C, h, w], normalised to length 1 over C."""
        ...


class Encoder:
    """A trunk up to layer3 in eval mode, with the normalisation its file asks for.

    layer4 belongs to training only: at test time the official code drops it and compares layer3.
    """

    def __init__(self, trunk: Trunk, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.trunk = trunk.eval().requires_grad_(False)
        like = next(trunk.parameters())
        self._mean = torch.tensor(mean, device=like.device, dtype=like.dtype).view(3, 1, 1)
        self._std = torch.tensor(std, device=like.device, dtype=like.dtype).view(3, 1, 1)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read `encoder.safetensors`; every tensor up to layer3 must be there, layer4 is ignored.

        Raises HvcError when the file is missing, damaged, or lacks or adds tensors.
        """
        state, metadata = read_encoder(Path(path))
        trunk = Trunk(metadata.architecture, metadata.stride_1_layers, last="layer3")
        state = {key: value for key, value in state.items() if not key.startswith("layer4.")}
        _check(state, trunk.state_dict(), Path(path), metadata)
        trunk.load_state_dict(state)
        return cls(trunk.to(device), metadata.mean, metadata.std)

    @classmethod
    def untrained(
        cls, seed: int, architecture: Architecture = "resnet18", device: str | torch.device = "cpu"
    ) -> Self:
        """A freshly initialised trunk with ImageNet normalisation: what training has to beat.

        The same seed gives the same weights; the caller's random state is not touched.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trunk = Trunk(architecture, last="layer3")
            initialise(trunk)
        return cls(trunk.to(device), IMAGENET_MEAN, IMAGENET_STD)

    @torch.inference_mode()
    def features(self, image: NDArray[np.uint8], input_size: int | None = None) -> Tensor:
        """Uint8 RGB [H, W, 3] -> [C, h, w], normalised to length 1 over C.

        Args:
            image: at its own size.
            input_size: shorter side in pixels to scale to first (bilinear, corners aligned, also
                upwards); None keeps the size. With HVC's strides h = ceil(H/8), w = ceil(W/8).
        """
        pixels = torch.tensor(np.ascontiguousarray(image), device=self._mean.device)
        scaled = (pixels.permute(2, 0, 1).to(self._mean.dtype) / 255 - self._mean) / self._std
        batch = scaled[None]
        if input_size is not None:
            size = scaled_size(image.shape[0], image.shape[1], input_size)
            batch = F.interpolate(batch, size, mode="bilinear", align_corners=True)
        return F.normalize(self.trunk(batch)[0], dim=0)


def scaled_size(height: int, width: int, shorter: int) -> tuple[int, int]:
    """(height, width) after scaling the shorter side; truncated in floating point as officially."""
    scale = shorter / min(height, width)
    return max(int(scale * height), 1), max(int(scale * width), 1)


def _check(
    state: dict[str, Tensor], expected: dict[str, Tensor], path: Path, metadata: EncoderMetadata
) -> None:
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    start = f"{path} is not a complete {metadata.architecture} trunk:"
    if missing:
        raise HvcError(f"{start} {len(missing)} tensors are missing, e.g. {missing[0]}; export it again")
    if unknown:
        raise HvcError(f"{start} it holds {len(unknown)} tensors of something else, e.g. {unknown[0]}")
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            found, wanted = list(tensor.shape), list(expected[key].shape)
            raise HvcError(f"{start} {key} has shape {found}, expected {wanted}")
        if not torch.isfinite(tensor).all():
            raise HvcError(f"{path}: {key} holds NaN or infinity (training diverged); take an earlier step")
