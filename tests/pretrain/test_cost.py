"""Parameters and operations, against counts made by hand."""

import pytest
import torch

from hvc.pretrain.model.cost import cost_of, lines
from hvc.pretrain.model.trunk import BLOCKS
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.training.peak import peak_tflops
from hvc.pretrain.training.speed import Speed


def trunk_macs(side: int) -> int:
    """ResNet-18 with stride 8 from layer2 on: every 3x3 convolution of layer2 to layer4 at side / 8."""
    stem = 3 * 64 * 49 * (side // 2) ** 2
    layer1 = 4 * 64 * 64 * 9 * (side // 4) ** 2
    weights = 64 * 128 * 9 + 3 * 128 * 128 * 9 + 64 * 128
    weights += 128 * 256 * 9 + 3 * 256 * 256 * 9 + 128 * 256
    weights += 256 * 512 * 9 + 3 * 512 * 512 * 9 + 256 * 512
    return stem + layer1 + weights * (side // 8) ** 2


@pytest.mark.parametrize("side", [64, 128, 256])
def test_operations_of_a_step_are_those_counted_by_hand(side):
    positions = (side // 8) ** 2
    stem = 3 * 64 * 49 * (side // 2) ** 2
    trunk = trunk_macs(side)
    projector = (512 * 256 + 2 * 256 * 256) * positions
    predictor = 3 * 256 * 256 * positions
    dynamic = (512 * 256 + 256 * 2) * positions
    forward = 2 * (2 * trunk + 2 * projector + predictor) + 4 * dynamic
    # Backward: once for the weights, once for the inputs, which images need not.
    backward = 2 * (2 * (trunk + projector + predictor) - stem) + 2 * 4 * dynamic
    cost = cost_of("resnet18", side)
    assert cost.flops_per_view_trunk == 2 * trunk
    assert cost.flops_per_image_forward == 2 * forward
    assert cost.flops_per_image_step == 2 * (forward + backward)


def test_the_paper_recipe():
    cost = cost_of("resnet18", 256)
    assert cost.parts == {
        "trunk": 11_176_512,
        "projector": 263_936,
        "predictor": 198_400,
        "dynamic head": 132_358,
    }
    assert cost.parameters == sum(cost.parts.values())
    assert cost.target_parameters == 11_176_512 + 263_936
    assert cost.flops_per_view_trunk / 2e9 == pytest.approx(12.0, abs=0.05)
    # 206 with the dense products of all pairs, which are left out here: at most 4 x 1024^2 x 256 MACs.
    dense = 4 * 2 * 1024**2 * 256
    assert cost.flops_per_image_step / 1e9 < 206 < (cost.flops_per_image_step + 2 * dense) / 1e9 + 1
    first, second = lines(cost)
    assert first.startswith("11.8 M trained parameters (trunk 11.18 M, projector 0.26 M")
    assert second.startswith("202 GFLOP per image and step (100 of them forward; trunk 12.0 GMAC per view)")


@pytest.mark.parametrize("architecture", [*BLOCKS, "foreign_trunks:Patches", "foreign_trunks:weighed"])
def test_any_trunk_is_counted_without_a_trace(architecture):
    cost_of.cache_clear()
    state = torch.random.get_rng_state()
    cost = cost_of(architecture, 64)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert cost.flops_per_image_step > cost.flops_per_image_forward > 4 * cost.flops_per_view_trunk > 0


def test_what_is_frozen_is_not_trained():
    frozen, free = cost_of("foreign_trunks:frozen_stem", 64), cost_of("foreign_trunks:Patches", 64)
    stem = 12 * 3 * 81
    assert free.parameters - frozen.parameters == stem + 12
    assert free.parts["trunk"] - frozen.parts["trunk"] == stem + 12
    assert frozen.target_parameters == free.target_parameters
    assert frozen.flops_per_image_forward == free.flops_per_image_forward
    # Of the first layer only the gradient of its weights was computed, on both views.
    assert free.flops_per_image_step - frozen.flops_per_image_step == 2 * 2 * stem * 64


def test_a_trunk_that_cannot_be_counted_is_said_once_and_trained_without_figures(caplog):
    cost_of.cache_clear()
    state = torch.random.get_rng_state()
    assert cost_of("foreign_trunks:Looking", 64) is None
    assert cost_of("foreign_trunks:Looking", 64) is None
    assert torch.equal(torch.random.get_rng_state(), state)
    (record,) = caplog.records
    assert "architecture foreign_trunks:Looking: its operations cannot be counted" in record.getMessage()
    config = TrainConfig.parse({"data": "x", "engine": {"peak_tflops": 1.0}})
    assert Speed(config, torch.device("cpu"), None).figures(100.0, 1) == {}


@pytest.mark.parametrize(
    ("name", "bf16", "fp16", "tf32", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 989.4, 494.7, 67),
        ("NVIDIA H100 PCIe", 756.5, 756.5, 378, 51),
        ("NVIDIA H200", 989.4, 989.4, 494.7, 67),
        ("NVIDIA A100-SXM4-40GB", 312, 312, 156, 19.5),
        ("NVIDIA A100 80GB PCIe", 312, 312, 156, 19.5),
        ("NVIDIA A40", 149.7, 149.7, 74.8, 37.4),
        ("NVIDIA L40S", 362, 362, 183, 91.6),
        ("Tesla V100-SXM2-16GB", None, 125, 15.7, 15.7),
        ("Tesla T4", None, 65, 8.1, 8.1),
        ("NVIDIA GeForce RTX 3090", 71, 71, 35.6, 35.6),
        ("NVIDIA GeForce RTX 4090", 165.2, 165.2, 82.6, 82.6),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None, None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None, None, None),
        ("NVIDIA A1000", None, None, None, None),
        ("AMD Instinct MI300X", None, None, None, None),
    ],
)
def test_peaks_by_the_names_that_pytorch_gives(monkeypatch, name, bf16, fp16, tf32, fp32):
    assert (peak_tflops(name, "bf16"), peak_tflops(name, "fp16")) == (bf16, fp16)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert peak_tflops(name, "fp32") == tf32
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    assert peak_tflops(name, "fp32") == fp32
