"""What is drawn for two views, in which order, and where flipped views lie."""

import random

import numpy as np
import pytest
import torch
from dense_loss import bin_centres, positive_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvc.pretrain.data.views import (
    Crop,
    ViewDraw,
    ViewOptions,
    crop_box,
    cut_view,
    draw_crop,
    draw_views,
    make_view,
    sample_rng,
)

SIDES = st.integers(1, 900)
FULL = ViewOptions(0.2, 0.8, flip=0.5, brightness=0.4, contrast=0.3, saturation=1.5, hue=0.1, grey=0.2)


@settings(deadline=None)
@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.integers(0, 2**32))
def test_crops_are_the_first_numbers_drawn(
    first: tuple[int, int], second: tuple[int, int], seed: int
) -> None:
    rng = random.Random(seed)
    expected = [draw_crop(*size, rng, 0.2, 0.8) for size in (first, second)]
    for options in (ViewOptions(0.2, 0.8), FULL):
        draws = draw_views((first, second), random.Random(seed), options)
        assert [draw.crop for draw in draws] == expected
    plain = random.Random(seed)
    draw_views((first, second), plain, ViewOptions(0.2, 0.8))
    assert plain.getstate() == rng.getstate()  # what is off draws nothing


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_off_shifts_nothing_else(seed: int) -> None:
    sizes = ((500, 375), (500, 375))
    flipped = draw_views(sizes, random.Random(seed), ViewOptions(flip=0.5))
    both = draw_views(sizes, random.Random(seed), ViewOptions(flip=0.5, brightness=0.4))
    assert [draw.flip for draw in flipped] == [draw.flip for draw in both]
    assert all(draw.colour is None for draw in flipped)


def test_draws_are_as_strong_as_asked() -> None:
    draws = [draw_views(((40, 30), (30, 40)), sample_rng(1, 2, n), FULL) for n in range(3000)]
    views = [view for pair in draws for view in pair]
    colours = np.array([view.colour for view in views])
    low, high = [0.6, 0.7, 0.0, -0.1, 0], [1.4, 1.3, 2.5, 0.1, 1]
    assert (colours >= low).all()
    assert (colours <= high).all()
    np.testing.assert_allclose(colours.min(0), low, atol=0.01)
    np.testing.assert_allclose(colours.max(0), high, atol=0.01)
    assert colours[:, 4].mean() == pytest.approx(0.2, abs=0.03)
    assert np.mean([view.flip for view in views]) == pytest.approx(0.5, abs=0.03)
    pairs = [(a.flip, b.flip) for a, b in draws]  # independent of each other
    assert pairs.count((True, False)) / len(pairs) == pytest.approx(0.25, abs=0.03)
    assert all(draw.crop.height * draw.crop.width >= 0.2 * 1200 * 0.9 for draw in views)


def test_options_at_their_ends() -> None:
    sizes = ((9, 9), (9, 9))
    rng = sample_rng(0, 0, 0)
    assert all(view.flip for view in draw_views(sizes, rng, ViewOptions(flip=1.0)))
    grey = draw_views(sizes, rng, ViewOptions(grey=1.0))
    assert [view.colour for view in grey] == [(1, 1, 1, 0, 1)] * 2


def test_two_views_are_two_draws_of_one_generator() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 90, 3), np.uint8))
    rng = sample_rng(7, 8, 9)
    for draw in draw_views((image.size, image.size), sample_rng(7, 8, 9), ViewOptions()):
        view = make_view(image, 64, rng)
        np.testing.assert_array_equal(view.pixels, cut_view(image, draw, 64))
        np.testing.assert_array_equal(view.box, np.array(draw.box, np.float32))
        np.testing.assert_array_equal(view.box, crop_box(draw.crop, *image.size))


def test_a_view_is_resized_in_width_first() -> None:
    # Whatever the version of Pillow takes for faster: the order decides how values are rounded.
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 100, 3), np.uint8))
    view = cut_view(image, ViewDraw(Crop(10, 20, 200, 50), (0, 0, 0, 0)), 64)
    region = image.crop((20, 10, 70, 210))
    expected = region.resize((64, 200), Image.Resampling.BILINEAR).resize(
        (64, 64), Image.Resampling.BILINEAR
    )
    np.testing.assert_array_equal(view, np.asarray(expected))
    once = np.asarray(region.resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(view.astype(int) - once).max() <= 1


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_flip_mirrors_pixels_and_box(seed: int) -> None:
    size = (37, 53)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (53, 37, 3), np.uint8))
    plain = draw_views((size, size), random.Random(seed), ViewOptions(flip=1e-9))
    mirrored = draw_views((size, size), random.Random(seed), ViewOptions(flip=1.0))
    for before, after in zip(plain, mirrored, strict=True):
        assert not before.flip
        assert after.flip
        np.testing.assert_array_equal(cut_view(image, after, 32), cut_view(image, before, 32)[:, ::-1])
        x0, y0, x1, y1 = before.box
        assert after.box == (x1, y0, x0, y1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 64), min_size=8, max_size=8))
def test_positives_of_flipped_views_are_the_same_points(numbers: list[int]) -> None:
    # In sixty-fourths all sums are exact, so that mirrored centres are equal, not only close.
    boxes = (torch.tensor(numbers, dtype=torch.float32) / 64).view(2, 4)
    mirrored = boxes[:, [2, 1, 0, 3]]
    centres, diagonals = bin_centres(boxes, 4, 8)
    flipped, flipped_diagonals = bin_centres(mirrored, 4, 8)
    torch.testing.assert_close(
        flipped.view(2, 4, 8, 2), centres.view(2, 4, 8, 2).flip(2), rtol=0, atol=0, equal_nan=True
    )
    torch.testing.assert_close(flipped_diagonals, diagonals, rtol=0, atol=0)
    mask = positive_mask(boxes[:1], boxes[1:], 4, 8, 0.5).view(4, 8, 4, 8)
    one = positive_mask(mirrored[:1], boxes[1:], 4, 8, 0.5).view(4, 8, 4, 8)
    both = positive_mask(mirrored[:1], mirrored[1:], 4, 8, 0.5).view(4, 8, 4, 8)
    assert torch.equal(one, mask.flip(1))
    assert torch.equal(both, mask.flip(1, 3))


def test_where_a_mark_ends_up_is_where_its_box_says() -> None:
    # A white column in the image: the flipped view shows it at the bin whose centre lies on it.
    pixels = np.zeros((65, 65, 3), np.uint8)
    pixels[:, 40] = 255
    crop = Crop(0, 16, 65, 33)
    x0, y0, x1, y1 = crop_box(crop, 65, 65).tolist()
    shown = cut_view(Image.fromarray(pixels), ViewDraw(crop, (x1, y0, x0, y1), flip=True), 32)
    column = int(shown[16, :, 0].argmax())
    centres, _ = bin_centres(torch.tensor([[x1, y0, x0, y1]]), 32, 32)
    assert centres.view(32, 32, 2)[16, column, 0].item() * 64 == pytest.approx(40, abs=1.5)
