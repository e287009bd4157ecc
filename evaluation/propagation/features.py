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
from hvc.evaluation.propagation.protocol import Resize
from hvc.pretrain.data.views import STATISTICS
from hvc.pretrain.model.architecture import Architecture, is_import_path
from hvc.pretrain.model.trunk import Trunk, TrunkModule, initialise, tracking_features
from hvc.pretrain.model.trunk_factory import build_trunk
from hvc.pretrain.weights.encoder_file import EncoderMetadata, check_state, read_encoder

IMAGENET_MEAN, IMAGENET_STD = STATISTICS["imagenet"]
CELL = 8
"""Width of a feature-map cell in pixels: HVC's stride."""

InputSize = int | tuple[int, int] | None
"""Size of images for the network: the shorter side, (height, width), or as they are."""


class Extractor(typing.Protocol):
    """Anything that turns images into feature maps; `Encoder` is the one of this project."""

    def features(
        self, image: NDArray[np.uint8], input_size: InputSize = None, resize: Resize = "aligned"
    ) -> Tensor:
        """Uint8 RGB [H, W, 3] -> [C, h, w], normalised to length 1 over C."""
        ...


class Encoder:
    """A trunk in eval mode, with the normalisation its file asks for.

    A ResNet's features are layer3's, as officially: layer4 belongs to training only. Another trunk's are
    what its `tracking_features` says, else its output.
    """

    def __init__(self, trunk: TrunkModule, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.trunk = trunk.eval().requires_grad_(False)
        like = next(trunk.parameters())
        self._mean = torch.tensor(mean, device=like.device, dtype=like.dtype).view(3, 1, 1)
        self._std = torch.tensor(std, device=like.device, dtype=like.dtype).view(3, 1, 1)

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", *, trust_architecture: bool = False
    ) -> Self:
        """Read `encoder.safetensors`; every tensor of the trunk must be there, but layer4 of a ResNet.

        Args:
            path: the file.
            device: where features are computed.
            trust_architecture: import the architecture that the file names where it is an import path;
                that runs code, so it is refused without the user's word.

        Raises HvcError when the file is missing, damaged, lacks or adds tensors, or names code to import.
        """
        state, metadata = read_encoder(Path(path))
        if is_import_path(metadata.architecture):
            trunk = _foreign(Path(path), metadata, trust_architecture)
        else:
            state = {key: value for key, value in state.items() if not key.startswith("layer4.")}
            trunk = Trunk(metadata.architecture, metadata.stride_1_layers, "layer3", metadata.padding)
        check_state(Path(path), metadata.architecture, state, trunk.state_dict())
        trunk.load_state_dict(state)
        return cls(trunk.to(device), metadata.mean, metadata.std)

    @classmethod
    def untrained(
        cls, seed: int, architecture: Architecture = "resnet18", device: str | torch.device = "cpu"
    ) -> Self:
        """A freshly initialised trunk with ImageNet normalisation: what training has to beat.

        The same seed gives the same weights; the caller's random state is not touched.
        """
        return cls(untrained_trunk(seed, architecture).to(device), IMAGENET_MEAN, IMAGENET_STD)

    @torch.inference_mode()
    def features(
        self, image: NDArray[np.uint8], input_size: InputSize = None, resize: Resize = "aligned"
    ) -> Tensor:
        """Uint8 RGB [H, W, 3] -> [C, h, w], normalised to length 1 over C.

        Args:
            image: at its own size.
            input_size: shorter side in pixels, or (height, width), to scale to first (bilinear without
                smoothing, also upwards); None keeps the size. With HVC's strides h = ceil(H/8) and
                w = ceil(W/8).
            resize: how, see `Protocol.image_resize`.
        """
        batch = _normalised(image, self._mean, self._std, input_size, resize)
        return F.normalize(tracking_features(self.trunk, batch)[0], dim=0)


class MergedExtractor:
    """Two encoders compared at once, as the official ensemble: both maps side by side, the first weighted.

    An affinity is then (weight^2 a + b) / (weight^2 + 1) of the two encoders' affinities a and b.
    """

    def __init__(self, first: Extractor, second: Extractor, weight: float) -> None:
        self.first, self.second, self.weight = first, second, weight

    @torch.inference_mode()
    def features(
        self, image: NDArray[np.uint8], input_size: InputSize = None, resize: Resize = "aligned"
    ) -> Tensor:
        """Uint8 RGB [H, W, 3] -> [C1 + C2, h, w]; HvcError when the encoders' strides differ."""
        maps = [one.features(image, input_size, resize) for one in (self.first, self.second)]
        sizes = [f"{found.shape[1]} x {found.shape[2]}" for found in maps]
        if sizes[0] != sizes[1]:
            raise HvcError(
                f"the merged encoders give maps of {sizes[0]} and {sizes[1]} cells for an image of "
                f"{image.shape[0]} x {image.shape[1]} pixels; only encoders of one stride can be merged"
            )
        return F.normalize(torch.cat([self.weight * maps[0], maps[1]]), dim=0)


class PixelExtractor:
    """No network: a cell's features are the pixels of its 8 x 8 patch. What any encoder has to beat."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._mean = torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1)

    @torch.inference_mode()
    def features(
        self, image: NDArray[np.uint8], input_size: InputSize = None, resize: Resize = "aligned"
    ) -> Tensor:
        """Uint8 RGB [H, W, 3] -> [192, ceil(H/8), ceil(W/8)]; pixels at the edge are repeated."""
        batch = _normalised(image, self._mean, self._std, input_size, resize)
        height, width = batch.shape[-2:]
        filled = F.pad(batch, (0, -width % CELL, 0, -height % CELL), mode="replicate")
        return F.normalize(F.pixel_unshuffle(filled, CELL)[0], dim=0)


def _normalised(
    image: NDArray[np.uint8], mean: Tensor, std: Tensor, input_size: InputSize, resize: Resize
) -> Tensor:
    """[1, 3, H, W] with the statistics' device and dtype, scaled as asked."""
    pixels = torch.tensor(np.ascontiguousarray(image), device=mean.device)
    batch = ((pixels.permute(2, 0, 1).to(mean.dtype) / 255 - mean) / std)[None]
    if input_size is None:
        return batch
    size = scaled_size(image.shape[0], image.shape[1], input_size)
    return F.interpolate(batch, size, mode="bilinear", align_corners=resize == "aligned")


def scaled_size(height: int, width: int, input_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) as given, or after scaling the shorter side, truncated as officially."""
    if isinstance(input_size, tuple):
        return input_size
    scale = input_size / min(height, width)
    return max(int(scale * height), 1), max(int(scale * width), 1)


def untrained_trunk(seed: int, architecture: Architecture = "resnet18") -> Trunk:
    """A freshly initialised ResNet, all layers: the seed decides it, the random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # First without layer4: what tracks with these weights needs none, and must not change with it.
        front = Trunk(architecture, last="layer3")
        initialise(front)
        trunk = Trunk(architecture)
        initialise(trunk)
    trunk.load_state_dict(front.state_dict(), strict=False)
    return trunk


def _foreign(path: Path, metadata: EncoderMetadata, trusted: bool) -> TrunkModule:
    if not trusted:
        raise HvcError(
            f"{path} asks to import {metadata.architecture} to build its trunk, which runs that code; if "
            "you trust it, add trust_architecture=true"
        )
    return build_trunk(metadata.architecture)
