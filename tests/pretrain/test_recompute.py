"""Recomputed activations: the same loss, gradients and BatchNorm statistics, to the last bit."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hvc.base.errors import UsageError
from hvc.pretrain.model.network import OnlineNetwork, TargetNetwork
from hvc.pretrain.model.pairs import find_pairs
from hvc.pretrain.model.recompute import recompute_blocks, recompute_cheap
from hvc.pretrain.recipe import TrainConfig


def one_pass(
    recompute: Callable[[nn.Module], None] | None, architecture: str
) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    torch.manual_seed(0)
    online = OnlineNetwork(architecture)
    target = TargetNetwork(online)
    views = [torch.randn(3, 3, 64, 64) for _ in range(2)]
    boxes = torch.tensor([[0.1, 0.1, 0.8, 0.9]] * 3)
    if recompute:
        recompute(online)
    kept: set[int] = set()
    bytes_kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal bytes_kept
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in kept:
            kept.add(storage.data_ptr())
            bytes_kept += storage.nbytes()
        return tensor

    keys = [target(view) for view in views]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = online(views, find_pairs((boxes, boxes), 8, 8), keys).total
    loss.backward()
    tensors = {name: parameter.grad for name, parameter in online.named_parameters()}
    return loss.detach(), tensors | dict(online.named_buffers()), bytes_kept


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
@pytest.mark.parametrize(("recompute", "most"), [(recompute_blocks, 0.5), (recompute_cheap, 0.98)])
def test_recomputing_changes_nothing_but_memory(architecture, recompute, most):
    loss, tensors, kept = one_pass(None, architecture)
    again, same, kept_less = one_pass(recompute, architecture)
    assert torch.equal(loss, again)
    differing = [name for name, value in tensors.items() if not torch.equal(value, same[name])]
    assert differing == []
    assert int(same["online_encoder.layer4.1.bn2.num_batches_tracked"]) == 2  # one per view
    assert int(same["online_encoder.bn1.num_batches_tracked"]) == 2
    assert int(same["flow.bn2.num_batches_tracked"]) == 4
    assert kept_less < most * kept


def test_a_trunk_without_blocks_is_refused():
    with pytest.raises(UsageError, match="residual blocks"):
        recompute_blocks(nn.Sequential(nn.Conv2d(3, 8, 1)))


def test_compiling_what_is_computed_again_is_refused():
    for key in ("compile", "recompute"):
        TrainConfig.parse({"data": "x", "engine": {key: True}})
    with pytest.raises(UsageError, match=r"engine\.compile and engine\.recompute cannot both be true"):
        TrainConfig.parse({"data": "x", "engine": {"compile": True, "recompute": True}})
