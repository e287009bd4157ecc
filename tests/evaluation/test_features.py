"""The encoder: file in, features out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hvc.base.errors import HvcError
from hvc.evaluation.features import Encoder, scaled_size
from hvc.pretrain.encoder_file import EncoderMetadata, write_encoder
from hvc.pretrain.trunk import Trunk, initialise

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(5)
    trunk = Trunk("resnet18")
    initialise(trunk)
    return trunk.eval()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "encoder.safetensors"


def write(path, state):
    metadata = EncoderMetadata(
        architecture="resnet18", stride_1_layers=("layer3", "layer4"), mean=MEAN, std=STD, step=7
    )
    write_encoder(path, state, metadata)


def picture(height=40, width=56):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_features_are_layer3_of_the_normalised_image(path, trunk):
    write(path, trunk.state_dict())
    features = Encoder.load(path).features(picture(41, 57))
    assert features.shape == (256, 6, 8)
    torch.testing.assert_close(features.norm(dim=0), torch.ones(6, 8))
    pixels = (picture(41, 57) / 255.0 - np.array(MEAN)) / np.array(STD)
    last = Trunk("resnet18", last="layer3").eval()
    last.load_state_dict({k: v for k, v in trunk.state_dict().items() if not k.startswith("layer4")})
    with torch.no_grad():
        expected = last(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])[0]
    torch.testing.assert_close(features, F.normalize(expected, dim=0), rtol=1e-4, atol=1e-5)


def test_a_trunk_without_layer4_is_complete(path, trunk):
    state = {key: value for key, value in trunk.state_dict().items() if not key.startswith("layer4")}
    write(path, state)
    assert Encoder.load(path).features(picture(), 32).shape == (256, 4, 6)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda state: state.pop("layer2.0.conv1.weight"),
            "1 tensors are missing, e.g. layer2.0.conv1.weight",
        ),
        (lambda state: state.update({"fc.weight": torch.zeros(3)}), "something else, e.g. fc.weight"),
        (
            lambda state: state.update({"bn1.bias": torch.zeros(3)}),
            r"bn1.bias has shape \[3\], expected \[64\]",
        ),
        (lambda state: state["bn1.bias"].fill_(torch.nan), "bn1.bias holds NaN"),
    ],
)
def test_a_file_that_is_not_the_trunk_is_refused(path, trunk, spoil, message):
    state = {key: value.clone() for key, value in trunk.state_dict().items()}
    spoil(state)
    write(path, state)
    with pytest.raises(HvcError, match=message):
        Encoder.load(path)


def test_untrained_depends_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = Encoder.untrained(3).features(picture())
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(Encoder.untrained(3).features(picture()), first)
    assert not torch.equal(Encoder.untrained(4).features(picture()), first)


def test_read_only_and_flipped_images_are_taken():
    encoder, image = Encoder.untrained(0), picture()
    image.setflags(write=False)
    assert torch.equal(encoder.features(image[::-1]), encoder.features(image[::-1].copy()))


@pytest.mark.parametrize(
    ("size", "shorter", "expected"),
    [
        ((480, 854), 240, (240, 427)),
        ((854, 480), 240, (427, 240)),
        ((480, 910), 320, (320, 606)),
        ((9, 9), 18, (18, 18)),
    ],
)
def test_the_shorter_side_is_scaled(size, shorter, expected):
    assert scaled_size(*size, shorter) == expected
