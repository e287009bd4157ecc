"""The encoder: file in, features out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hvc.base.errors import HvcError
from hvc.evaluation.propagation.features import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Encoder,
    MergedExtractor,
    PixelExtractor,
    scaled_size,
)
from hvc.pretrain.model.trunk import Trunk, initialise
from hvc.pretrain.weights.encoder_file import EncoderMetadata, write_encoder

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
    ("size", "asked", "expected"),
    [
        ((480, 854), 240, (240, 427)),
        ((854, 480), 240, (427, 240)),
        ((480, 910), 320, (320, 606)),
        ((9, 9), 18, (18, 18)),
        ((480, 854), (320, 328), (320, 328)),
    ],
)
def test_the_shorter_side_is_scaled_or_the_size_is_as_asked(size, asked, expected):
    assert scaled_size(*size, asked) == expected


@pytest.mark.parametrize("extractor", [Encoder.untrained(0), PixelExtractor()])
@pytest.mark.parametrize(("size", "cells"), [(None, (6, 8)), (32, (4, 6)), ((64, 24), (8, 3))])
def test_maps_have_the_size_asked_for(extractor, size, cells):
    assert extractor.features(picture(41, 57), size).shape[1:] == cells


@pytest.mark.parametrize("size", [(16, 24), (80, 72)])
@pytest.mark.parametrize("resize", ["aligned", "half-pixel"])
def test_images_are_scaled_with_corners_on_corners_or_as_opencv_does(size, resize):
    """Where a pixel of the scaled image lies in the image, and the four around that place."""
    image = picture()

    def matrix(old, new):
        rows = np.zeros((new, old))
        for to in range(new):
            place = to * (old - 1) / (new - 1) if resize == "aligned" else (to + 0.5) * old / new - 0.5
            place = min(max(place, 0), old - 1)
            rows[to, int(place)] += 1 - place % 1
            rows[to, min(int(place) + 1, old - 1)] += place % 1
        return rows

    scaled = np.einsum("yh,hwc,xw->yxc", matrix(40, size[0]), image.astype(float), matrix(56, size[1]))
    normalised = torch.from_numpy((scaled / 255 - IMAGENET_MEAN) / IMAGENET_STD).permute(2, 0, 1)
    expected = F.normalize(F.pixel_unshuffle(normalised[None], 8)[0], dim=0).float()
    torch.testing.assert_close(PixelExtractor().features(image, size, resize), expected, rtol=0, atol=1e-5)


def test_pixels_are_those_of_the_cells_patch():
    """Cells at the edge repeat the last row and column; each has length 1."""
    image = picture(41, 57)
    features = PixelExtractor().features(image)
    assert features.shape == (192, 6, 8)
    torch.testing.assert_close(features.norm(dim=0), torch.ones(6, 8))
    rows, columns = np.arange(40, 48).clip(max=40), np.arange(56, 64).clip(max=56)
    for cell, patch in (((1, 2), image[8:16, 16:24]), ((5, 7), image[rows][:, columns])):
        pixels = (patch / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        expected = torch.from_numpy(pixels.transpose(2, 0, 1).ravel()).float()
        torch.testing.assert_close(features[:, *cell], F.normalize(expected, dim=0))


def test_two_encoders_are_compared_at_once():
    """The affinity is the weighted mean of both: (w^2 a + b) / (w^2 + 1)."""
    one, two, weight = Encoder.untrained(1), Encoder.untrained(2), 1.75
    affinities = []
    for extractor in (one, two, MergedExtractor(one, two, weight)):
        flat = extractor.features(picture(), 32).flatten(1)
        affinities.append(flat.T @ flat)
    expected = (weight**2 * affinities[0] + affinities[1]) / (weight**2 + 1)
    torch.testing.assert_close(affinities[2], expected, rtol=1e-4, atol=1e-5)


def test_encoders_of_different_strides_are_not_merged():
    trunk = Trunk("resnet18", (), "layer3")  # stride 16
    other = Encoder(trunk, MEAN, STD)
    with pytest.raises(HvcError, match="maps of 5 x 7 and 3 x 4 cells for an image of 40 x 56 pixels"):
        MergedExtractor(Encoder.untrained(0), other, 1.05).features(picture())
