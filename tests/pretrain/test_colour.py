"""Colour changes are the field's: as Pillow's enhancers and the HSV formulas give them."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hvc.pretrain.data.colour import colour_tensor, recolour
from hvc.pretrain.data.views import Colour, ViewOptions, draw_views, sample_rng

NEUTRAL: Colour = (1.0, 1.0, 1.0, 0.0, 0.0)


def photos(count: int = 4, size: int = 32) -> Tensor:
    """Coloured noise over a gradient, with greys, black and white: uint8 values / 255."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size, size, 3))
    pixels[:, :8] = np.arange(size)[:, None] * 255 // (size - 1)
    pixels[:, 8:12], pixels[:, 12:14] = 0, 255
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def pillow(images: Tensor, enhancer: type, factor: float) -> np.ndarray:
    arrays = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return np.stack([np.asarray(enhancer(Image.fromarray(array)).enhance(factor)) for array in arrays])


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.6, 0.9, 1.0, 1.1, 1.4, 2.0])
@pytest.mark.parametrize(
    ("place", "enhancer"),
    [(0, ImageEnhance.Brightness), (1, ImageEnhance.Contrast), (2, ImageEnhance.Color)],
)
def test_like_pillow(place: int, enhancer: type, factor: float) -> None:
    images = photos()
    colour = list(NEUTRAL)
    colour[place] = factor
    changed = recolour(images, torch.tensor([colour] * len(images)))
    apart = changed.permute(0, 2, 3, 1).numpy() * 255 - pillow(images, enhancer, factor)
    # Pillow cuts off what follows the point, and blends with a grey image that is rounded to 8 bits.
    rounded = 0 if place == 0 else 0.5 * abs(1 - factor)
    assert apart.min() > -rounded - 1e-3
    assert apart.max() < 1 + rounded + 1e-3


def test_grey_like_pillow() -> None:
    images = photos()
    changed = recolour(images, torch.tensor([[1, 1, 1, 0, 1.0]] * len(images)))
    arrays = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    expected = np.stack(
        [np.asarray(Image.fromarray(array).convert("L").convert("RGB")) for array in arrays]
    )
    assert np.abs(changed.permute(0, 2, 3, 1).numpy() * 255 - expected).max() < 0.51


@pytest.mark.parametrize("turn", [-0.5, -0.2, 0.01, 0.25, 1 / 3, 0.5])
def test_hue_is_turned_in_hsv(turn: float) -> None:
    images = photos(2, 16)
    changed = recolour(images, torch.tensor([[1, 1, 1, turn, 0.0]] * 2))
    pixels = images.permute(0, 2, 3, 1).reshape(-1, 3).tolist()
    expected = []
    for pixel in pixels:
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value))
    np.testing.assert_allclose(changed.permute(0, 2, 3, 1).reshape(-1, 3), expected, atol=1e-5)


def test_neutral_is_identity_to_the_last_bit_even_beside_others() -> None:
    images = photos(3) * 0.9173  # not only values k / 255
    assert recolour(images, None) is images
    assert recolour(images, torch.tensor([NEUTRAL] * 3)) is images
    strong = (0.5, 1.7, 0.2, 0.3, 1.0)
    changed = recolour(images, torch.tensor([strong, NEUTRAL, strong]))
    assert torch.equal(changed[1], images[1])
    assert not torch.equal(changed[0], images[0])


def test_input_is_not_changed() -> None:
    images = photos()
    before = images.clone()
    recolour(images, torch.tensor([(0.5, 1.7, 0.2, 0.3, 0.0)] * 4))
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", [31, 64])
def test_a_sample_does_not_depend_on_its_batch(size: int) -> None:
    images = photos(9, size)
    options = ViewOptions(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.3)
    draws = [draw_views(((9, 9), (9, 9)), sample_rng(0, 0, n), options)[0] for n in range(9)]
    colours = colour_tensor(draws)
    assert colours is not None
    together = recolour(images, colours)
    assert together.min() >= 0
    assert together.max() <= 1
    alone = torch.cat([recolour(images[n : n + 1], colours[n : n + 1]) for n in range(9)])
    assert torch.equal(together, alone)
    assert torch.equal(recolour(images.flip(0), colours.flip(0)).flip(0), together)


def test_order_is_brightness_contrast_saturation_hue_grey() -> None:
    images = photos()
    colour = (1.3, 0.6, 1.6, 0.2, 1.0)
    step = images
    for place in range(5):
        single = list(NEUTRAL)
        single[place] = colour[place]
        step = recolour(step, torch.tensor([single] * 4))
    assert torch.equal(recolour(images, torch.tensor([colour] * 4)), step)


def test_no_colour_drawn_is_no_tensor() -> None:
    draws = draw_views(((9, 9), (9, 9)), sample_rng(0, 0, 0), ViewOptions(flip=0.5))
    assert colour_tensor(draws) is None


class _OntoTheDevice(TorchFunctionMode):
    """What makes tensors on the device, here PyTorch's meta device, of nothing that is there already."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        there = any(isinstance(value, Tensor) and value.is_meta for value in args)
        if isinstance(made, Tensor) and made.is_meta and not there:
            self.made.append(func.__name__)
        return made


def test_nothing_but_the_factors_comes_from_the_host() -> None:
    images = torch.empty(4, 3, 8, 8, device="meta")
    colours = torch.tensor([[1.1, 0.9, 1.2, 0.3, 1.0]] * 4)
    with _OntoTheDevice() as seen:
        recolour(images, colours)
    assert seen.made == ["to", "arange"]  # the factors, and what the device counts out by itself
