"""Normalised views: view by view or all at once, the same to the last bit."""

import pytest
import torch
from torch import Tensor

from hvc.pretrain.data.colour import recolour
from hvc.pretrain.data.normalise import Normaliser
from hvc.pretrain.data.views import STATISTICS


def plainly(pixels: Tensor, statistics: str, colours: Tensor | None) -> Tensor:
    """As the formula says."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in STATISTICS[statistics])
    images = recolour(pixels.permute(0, 3, 1, 2).float() / 255, colours)
    return (images - mean) / std


def all_values(size: int) -> Tensor:
    """Views in which every channel has every value."""
    numbers = torch.arange(3 * size * size * 3).reshape(3, size, size, 3)
    return (numbers // 3 * 2 + 85 * numbers).to(torch.uint8)


@pytest.mark.parametrize("statistics", sorted(STATISTICS))
@pytest.mark.parametrize("size", [32, 40])
@pytest.mark.parametrize("coloured", [False, True])
def test_views_are_normalised_exactly(statistics: str, size: int, coloured: bool) -> None:
    pixels = all_values(size)
    assert all(len(torch.unique(pixels[..., channel])) == 256 for channel in range(3))
    colours = torch.tensor([[1.2, 0.7, 1.4, 0.1, 0], [1, 1, 1, 0, 0], [1, 0.5, 1, 0, 1.0]])
    chosen = colours if coloured else None
    made = Normaliser(statistics, torch.device("cpu"))(pixels, chosen)
    expected = plainly(pixels, statistics, chosen)
    assert torch.equal(made, expected)
    assert made.stride() == expected.stride()  # convolutions round by the layout, too


def test_views_may_be_slices_of_a_batch() -> None:
    pixels = all_values(64)[:, 8:40, 8:40]
    made = Normaliser("cifar10", torch.device("cpu"))(pixels)
    assert torch.equal(made, plainly(pixels.contiguous(), "cifar10", None))


def test_no_views() -> None:
    assert Normaliser("cifar10", torch.device("cpu"))(
        torch.empty((0, 32, 32, 3), dtype=torch.uint8)
    ).shape == ((0, 3, 32, 32))
