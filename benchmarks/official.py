"""The official training code, run from a checkout that the user names: nothing of it lies here.

    git clone https://github.com/NUST-Machine-Intelligence-Laboratory/HVC DIR

Its network and its loss are imported as they are. What `train_img.py` does around them in a step (Adam,
the order of calls, reading the loss for its log) is done here in the same order, since that file wants
torchvision and a process of its own. Settings are the defaults of its command line.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from hvc.base.errors import UsageError

_SETTINGS = {
    "momentum_target": 0.99,
    "pos_radius": 0.1,
    "projection_hidden_dim": 256,
    "projection_dim": 256,
    "prediction_hidden_dim": 256,
    "remove_stride_layers": ("layer3", "layer4"),
    "epochs": 1,
}
LEARNING_RATE = 1e-3


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--official`."""
    parser.add_argument(
        "--official",
        type=Path,
        help="checkout of the official code; without it that comparison is left out",
    )


class Official:
    """The official model and its training step.

    Args:
        checkout: folder of the repository.
        size: side of the views in pixels.
        total_steps: of the EMA schedule.
        amp: fp16 autocast and a loss scaler, which its image script has and leaves off.
    """

    def __init__(
        self, checkout: Path, size: int, total_steps: int, device: torch.device, *, amp: bool = False
    ) -> None:
        resnet, model = _import(checkout)
        arguments = SimpleNamespace(**_SETTINGS, img_size=size, num_steps=total_steps)
        self.model = model.HVC(resnet.resnet18, arguments).to(device).train()
        self._optimiser = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0)
        self._scaler = torch.amp.GradScaler(device.type) if amp else None
        self._device = device

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take weights and buffers of both networks, by the names that both codes use."""
        self.model.load_state_dict(tensors)

    def step(self, views: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """One training step; the loss before it, [].

        Args:
            views: float [B, 1, 3, S, S] each, normalised, on any device.
            boxes: float [B, 1, 4] each.
        """
        inputs = [value.to(self._device, non_blocking=True) for value in (*views, *boxes)]
        with torch.autocast(self._device.type, torch.float16) if self._scaler else nullcontext():
            loss: Tensor = self.model(*inputs)
        if self._scaler:
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.step(self._optimiser)
            self._scaler.update()
        else:
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
        self._optimiser.zero_grad()
        loss.item()  # for its log, in every step
        return loss.detach()


@contextmanager
def as_shipped() -> Iterator[None]:
    """What its script sets for cuDNN, and TF32 as PyTorch 1.12 had it: in convolutions alone."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32 = True, False, True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32 = before


def _import(checkout: Path) -> tuple[Any, Any]:
    """Its `models.resnet` and `models.model`; the name `models` stays free for others."""
    if not (checkout / "models" / "model.py").is_file():
        raise UsageError(f"--official {checkout}: no models/model.py in it; clone the official repository")
    sys.path.insert(0, str(checkout.absolute()))
    try:
        resnet = importlib.import_module("models.resnet")
        return resnet, importlib.import_module("models.model")
    finally:
        sys.path.remove(str(checkout.absolute()))
        for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
            del sys.modules[name]
