"""Trunks from other people's files, by name: official HVC, MoCo, CRW, torchvision, and our own.

Every entry is accounted for. What is left out is left out by name (heads, queues, optimiser); a tensor
that is missing, unknown or misshapen is an error, where the official loaders pass over it in silence
and track with random weights.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from hvc.base.errors import HvcError
from hvc.base.storage import sha256_file
from hvc.pretrain.model.architecture import Layer, Padding, ResNet, is_import_path
from hvc.pretrain.model.trunk import BLOCKS, Trunk
from hvc.pretrain.weights.encoder_file import EncoderMetadata, check_state, metadata_of, read_safetensors
from hvc.pretrain.weights.torch_file import is_safetensors, load_torch, refuse_absurd

Kind = Literal["hvc-training", "moco", "crw", "resnet", "encoder"]
_COUNTER = ".num_batches_tracked"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Layout(NamedTuple):
    """How a project names its tensors."""

    kind: Kind
    prefix: str
    """What the trunk's keys begin with."""
    others: dict[str, str] = {}  # noqa: RUF012 - never written to
    """Beginnings of keys that are left out, and what they are."""


LAYOUTS = (
    Layout(
        "hvc-training",
        "online_encoder.",
        {
            "target_encoder.": "EMA target",
            "target_space_projector.": "EMA target",
            "online_space_projector.": "projector",
            "space_predictor.": "predictor",
            "flow.": "dynamic head",
        },
    ),
    Layout("moco", "encoder_q.", {"encoder_k.": "key encoder", "queue": "queue"}),
    Layout("crw", "encoder.model.", {"selfsim_": "head", "head": "head"}),
    Layout("resnet", ""),
)


class Imported(NamedTuple):
    """A trunk that was read, and an account of the rest of its file."""

    state: dict[str, Tensor]
    """Trunk keys as torchvision's; float32, counters int64; complete up to layer3 or layer4."""
    metadata: EncoderMetadata
    dropped: dict[str, int]
    """What was left out -> number of tensors; entries beside the state dict count as 0."""
    added: int
    """BatchNorm counters that the file lacks, set to 0; old PyTorch had none, and nothing reads them."""

    def report(self) -> dict[str, Any]:
        """For people and machines."""
        values = self.metadata.resolved()
        names = ("source_kind", "source_sha256", "architecture", "stride_1_layers", "padding", "step")
        return {
            **{name: values[name] for name in names},
            "layers_up_to": _last(self.state),
            "tensors": len(self.state),
            "left_out": self.dropped,
            "counters_added": self.added,
        }


def read_weights(path: Path) -> Imported:
    """Read the trunk in a file of any known layout; HvcError says what is wrong with which tensor."""
    if is_safetensors(path):
        refuse_absurd(path)
        tensors, metadata = read_safetensors(path)
        if metadata is not None:
            return _ours(path, tensors, metadata)
        content: Any = tensors
    else:
        refuse_absurd(path)
        content = load_torch(path)
    named, beside = _state_dict(path, content)
    layout, trunk, dropped = _divide(path, named)
    padding: Padding = _crw_padding(named, beside) if layout.kind == "crw" else "zeros"
    if layout.kind == "crw":
        trunk = {re.sub(r"(conv\d)\.1\.weight$", r"\1.weight", key): value for key, value in trunk.items()}
    architecture = _architecture(path, trunk)
    state, added = complete(path, trunk, architecture)
    metadata = metadata_of(architecture, _steps(beside)).model_copy(
        update={
            "padding": padding,
            "source_kind": layout.kind,
            "source_sha256": sha256_file(path),
        }
    )
    return Imported(state, metadata, dropped | dict.fromkeys(sorted(beside), 0), added)


def _ours(path: Path, tensors: dict[str, Tensor], metadata: EncoderMetadata) -> Imported:
    if is_import_path(metadata.architecture):
        raise HvcError(
            f"{path} is a trunk of hvc already, of architecture {metadata.architecture}; copy it as it is"
        )
    state, added = complete(path, tensors, metadata.architecture)
    source = {"source_kind": "encoder", "source_sha256": sha256_file(path)}
    return Imported(state, metadata.model_copy(update=source), {}, added)


def _state_dict(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The file's tensors by name, and what lies beside them."""
    if not isinstance(content, Mapping):
        raise HvcError(f"{path} holds a {type(content).__name__}, no state dict; save `model.state_dict()`")
    beside: dict[str, Any] = {}
    for entry in ("model", "state_dict"):
        if isinstance(content.get(entry), Mapping):
            beside = {str(key): value for key, value in content.items() if key != entry}
            content = content[entry]
            break
    others = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        found = ", ".join(map(str, others[:5])) or "nothing"
        raise HvcError(
            f"{path}: no state dict in it (looked for tensors by name, at the top and under `model` and "
            f"`state_dict`; found {found})"
        )
    named = {str(key): value for key, value in content.items()}
    if all(key.startswith("module.") for key in named):  # DataParallel's wrapping
        named = {key.removeprefix("module."): value for key, value in named.items()}
    return named, beside


def _divide(path: Path, named: dict[str, Tensor]) -> tuple[Layout, dict[str, Tensor], dict[str, int]]:
    """The layout, the trunk's tensors by torchvision's names, and a count of what is left out."""
    layout = next(item for item in LAYOUTS if any(key.startswith(item.prefix) for key in named))
    trunk: dict[str, Tensor] = {}
    dropped: Counter[str] = Counter()
    unknown = []
    for key, value in named.items():
        what = next((text for start, text in layout.others.items() if key.startswith(start)), None)
        if what is not None:
            dropped[what] += 1
        elif not key.startswith(layout.prefix):
            unknown.append(key)
        elif key.startswith(f"{layout.prefix}fc."):
            dropped["classifier"] += 1
        else:
            trunk[key.removeprefix(layout.prefix)] = value
    if unknown:
        raise HvcError(
            f"{path}: looks like {layout.kind} weights, but {len(unknown)} tensors belong to nothing "
            f"there, e.g. {', '.join(unknown[:5])}"
        )
    return layout, trunk, dict(dropped)


def _crw_padding(named: dict[str, Tensor], beside: dict[str, Any]) -> Padding:
    """CRW trains with reflected borders unless told `scratch_zeropad`; early files name the pad layer."""
    if any(re.search(r"conv\d\.1\.weight$", key) for key in named):
        return "reflect"
    told = getattr(beside.get("args"), "model_type", "scratch")
    return "zeros" if told == "scratch_zeropad" else "reflect"


def _architecture(path: Path, trunk: dict[str, Tensor]) -> ResNet:
    """Which ResNet it is, by its blocks; layer4 may be absent."""
    blocks = tuple(_blocks(trunk, f"layer{number}.") for number in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in trunk
    names: tuple[ResNet, ...] = ("resnet50",) if bottleneck else ("resnet18", "resnet34")
    for name in names:
        if blocks[:3] == BLOCKS[name][:3] and blocks[3] in (0, BLOCKS[name][3]):
            return name
    if 0 in blocks[:3] or "conv1.weight" not in trunk:
        known = ", ".join(f"`{item.prefix}`" for item in LAYOUTS if item.prefix)
        raise HvcError(
            f"{path}: no ResNet in it: looked for conv1.weight and layer1 to layer3, plain or after "
            f"{known}; found e.g. {', '.join(sorted(trunk)[:5])}"
        )
    kind = "bottleneck" if bottleneck else "basic"
    raise HvcError(
        f"{path}: a ResNet with {blocks} {kind} blocks per layer is none of ResNet-18 (2, 2, 2, 2), "
        "ResNet-34 and ResNet-50 (3, 4, 6, 3)"
    )


def _blocks(trunk: dict[str, Tensor], prefix: str) -> int:
    return len({key.split(".")[1] for key in trunk if key.startswith(prefix)})


def _last(state: dict[str, Tensor]) -> Layer:
    return "layer4" if any(key.startswith("layer4.") for key in state) else "layer3"


def complete(path: Path, trunk: dict[str, Tensor], architecture: str) -> tuple[dict[str, Tensor], int]:
    """The checked state, in the trunk's own order, float32; and how many counters had to be added.

    HvcError names the file and what is missing, unknown, misshapen or not finite; layer4 may be absent.
    """
    with torch.device("meta"):
        expected = Trunk(architecture, last=_last(trunk)).state_dict()
    absent = [key for key in expected if key.endswith(_COUNTER) and key not in trunk]
    trunk = trunk | {key: torch.tensor(0) for key in absent}
    for key, value in trunk.items():
        wanted = (torch.int64,) if key.endswith(_COUNTER) else _FLOATS
        if value.layout != torch.strided or value.dtype not in wanted:
            raise HvcError(f"{path}: {key} is of type {value.dtype} ({value.layout}), expected {wanted[0]}")
    check_state(path, architecture, trunk, expected)
    state = {key: trunk[key].to(like.dtype).clone() for key, like in expected.items()}
    return state, len(absent)


def _steps(beside: dict[str, Any]) -> int:
    """Optimiser steps, where the optimiser that lies beside the weights counts them (Adam does)."""
    optimiser = beside.get("optimizer")
    states = optimiser.get("state") if isinstance(optimiser, Mapping) else None
    if not isinstance(states, Mapping):
        return 0
    counts = [state.get("step", 0) for state in states.values() if isinstance(state, Mapping)]
    return max((int(count) for count in counts if _is_count(count)), default=0)


def _is_count(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and bool(torch.isfinite(value).all())
    return isinstance(value, int)
