"""Files of weights as other projects write them, made from trunks of ours."""

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hvc.pretrain.model.network import OnlineNetwork, TargetNetwork
from hvc.pretrain.model.trunk import Trunk, initialise


def trunk_state(architecture: str = "resnet18", last: str = "layer4", seed: int = 0) -> dict[str, Tensor]:
    """A trunk's state with nothing at its default: buffers and the zeroed norms are drawn, too."""
    torch.manual_seed(seed)
    trunk = Trunk(architecture, last=last)
    initialise(trunk)
    for name, value in trunk.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(7)
        elif value.dim() == 1:
            value.uniform_(0.5, 1.5)
    return trunk.state_dict()


def hvc_training(path: Path, trunk: dict[str, Tensor], steps: int = 3) -> Path:
    """`{model, optimizer, epoch, args}` with a Namespace, as the official train script saves it."""
    online = OnlineNetwork()
    online.online_encoder.load_state_dict(trunk)
    model = OrderedDict(online.state_dict() | TargetNetwork(online).state_dict())
    optimiser = torch.optim.Adam(online.space_predictor.parameters())
    for _ in range(steps):
        for parameter in online.space_predictor.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimiser.step()
    args = argparse.Namespace(arch="resnet18", epochs=20, remove_stride_layers=["layer3", "layer4"])
    return save(path, {"model": model, "optimizer": optimiser.state_dict(), "epoch": 3, "args": args})


def moco(path: Path, trunk: dict[str, Tensor]) -> Path:
    """DataParallel's prefix, both encoders with classifiers, the queue; the old, unzipped format."""
    state = OrderedDict()
    for encoder in ("encoder_q", "encoder_k"):
        for name, value in trunk.items():
            state[f"module.{encoder}.{name}"] = value if encoder == "encoder_q" else torch.zeros_like(value)
        state[f"module.{encoder}.fc.weight"] = torch.zeros(128, 2048)
        state[f"module.{encoder}.fc.bias"] = torch.zeros(128)
    state["module.queue"], state["module.queue_ptr"] = torch.zeros(128, 64), torch.zeros(1).long()
    content = {"epoch": 200, "arch": "resnet50", "state_dict": state, "optimizer": {"state": {}}}
    return save(path, content, _use_new_zipfile_serialization=False)


def crw(path: Path, trunk: dict[str, Tensor], pad_layers: bool, model_type: str | None = None) -> Path:
    """No layer4, a head beside; early files have the padding as a layer before each wide convolution."""
    model = OrderedDict()
    for name, value in trunk.items():
        if pad_layers and value.dim() == 4 and value.shape[-1] > 1:
            name = name.replace(".weight", ".1.weight")
        model[f"encoder.model.{name}"] = value
    model["selfsim_fc.0.weight"], model["selfsim_fc.0.bias"] = torch.zeros(128, 256), torch.zeros(128)
    content: dict[str, Any] = {"model": model, "epoch": 1}
    if model_type:
        content["args"] = argparse.Namespace(model_type=model_type)
    return save(path, content)


def torchvision(path: Path, trunk: dict[str, Tensor]) -> Path:
    """Plain keys and a classifier; the oldest files lack BatchNorm's counters."""
    state = {key: value for key, value in trunk.items() if not key.endswith("num_batches_tracked")}
    return save(path, OrderedDict(state | {"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2)}))


def save(path: Path, content: Any, **options: Any) -> Path:
    """`torch.save`, and the path back."""
    torch.save(content, path, **options)
    return path
