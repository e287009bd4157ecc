"""ResNet trunks: sizes, strides, borders, initialisation; and trunks of others by import path."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hvc.base.errors import UsageError
from hvc.pretrain.model.trunk import BasicBlock, Bottleneck, Trunk, initialise, tracking_features
from hvc.pretrain.model.trunk_factory import build_trunk
from hvc.pretrain.recipe import TrainConfig


@pytest.mark.parametrize(
    ("architecture", "published", "classifier", "width", "tracked"),
    [  # torchvision's published counts, classifier of 1,000 classes included
        ("resnet18", 11_689_512, 513_000, 512, 256),
        ("resnet34", 21_797_672, 513_000, 512, 256),
        ("resnet50", 25_557_032, 2_049_000, 2048, 1024),
    ],
)
def test_resnets_have_their_published_size(architecture, published, classifier, width, tracked):
    with torch.device("meta"):
        trunk = build_trunk(architecture)
        images = torch.empty(2, 3, 97, 70)
    assert sum(parameter.numel() for parameter in trunk.parameters()) == published - classifier
    assert trunk.width == width
    assert trunk(images).shape == (2, width, 13, 9)
    assert tracking_features(trunk, images).shape == (2, tracked, 13, 9)


def test_with_its_strides_a_resnet_has_stride_32():
    with torch.device("meta"):
        assert Trunk("resnet34", stride_1_layers=())(torch.empty(1, 3, 96, 64)).shape == (1, 512, 3, 2)


def test_reflected_borders_are_those_of_a_padding_layer_before_each_convolution():
    torch.manual_seed(0)
    trunk, plain = Trunk(padding="reflect", last="layer3").eval(), Trunk(last="layer3").eval()
    plain.load_state_dict(trunk.state_dict())
    images = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        assert not torch.allclose(plain(images), trunk(images), atol=1e-2)
        for module in plain.modules():
            if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
                module.register_forward_pre_hook(_reflect(module.padding[0]))
                module.padding = (0, 0)
        torch.testing.assert_close(trunk(images), plain(images))


def _reflect(margin):
    return lambda module, inputs: (F.pad(inputs[0], [margin] * 4, mode="reflect"),)


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_the_stated_initialisation(architecture):
    trunk = Trunk(architecture)
    with torch.no_grad():
        for value in trunk.state_dict().values():
            value.fill_(9)
        initialise(trunk)
    closing = [b.last_norm for b in trunk.modules() if isinstance(b, BasicBlock | Bottleneck)]
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            fan_out = math.prod(module.kernel_size) * module.out_channels
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
            assert abs(module.weight.mean()) < 0.05 * module.weight.std()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == (0 if module in closing else 1)).all()
            assert (module.bias == 0).all()
            assert (module.running_mean == 0).all()
            assert (module.running_var == 1).all()
    assert len(closing) == {"resnet18": 8, "resnet50": 16}[architecture]


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("resnet81", "did you mean 'resnet18'"),
        ("vit", "none of resnet18, resnet34, resnet50, nor `package.module:factory`"),
        ("a:b:c", "none of"),
        ("a b:c", "none of"),
        ("../x:y", "none of"),
        ("", "none of"),
    ],
)
def test_recipes_refuse_other_names(architecture, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig.parse({"data": "x", "architecture": architecture})


def test_a_recipe_does_not_import_what_it_names():
    config = TrainConfig.parse({"data": "x", "architecture": "no.such.module:factory"})
    assert config.architecture == "no.such.module:factory"


def test_a_trunk_of_ones_own():
    trunk = build_trunk("foreign_trunks:Patches")
    assert (trunk.width, trunk.training) == (24, True)
    assert trunk.norm.num_batches_tracked == 0  # looking at its shapes left no trace
    images = torch.zeros(2, 3, 32, 41)
    assert trunk(images).shape == (2, 24, 4, 6)
    assert tracking_features(trunk, images).shape == (2, 12, 4, 6)
    plain = build_trunk("foreign_trunks:Plain")
    assert torch.equal(tracking_features(plain, images), plain(images))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:make", r"cannot import it .* PYTHONPATH"),
        ("foreign_trunks:nothing", "module foreign_trunks has no 'nothing'"),
        ("foreign_trunks:fails", r"fails\(\) failed: RuntimeError: no weights here"),
        ("foreign_trunks:no_module", "gave a dict, no nn.Module"),
        ("foreign_trunks:no_width", r"needs an attribute `width`.*found None"),
        ("foreign_trunks:wrong_width", r"its output is \[1, 5, 8, 9\], expected \[1, 6, 8, 9\]"),
        ("foreign_trunks:stride_16", r"its output is \[1, 5, 4, 5\], expected \[1, 5, 8, 9\]: stride 8"),
        ("foreign_trunks:floors", r"\[1, 3, 57, 33\] its output is .* expected \[1, 5, 8, 5\]"),
        ("foreign_trunks:coarse_tracking", r"tracking_features is \[1, 3, 4, 5\], expected \[1, 3, 8, 9\]"),
        ("foreign_trunks:pair", r"its output is \['tuple'\], expected"),
        ("foreign_trunks:only_large", "cannot take an image of 64 x 72 pixels"),
    ],
)
def test_what_a_trunk_owes_is_said_at_the_start(name, message):
    with pytest.raises(UsageError, match=message) as caught:
        build_trunk(name)
    assert f"architecture {name}" in str(caught.value)
