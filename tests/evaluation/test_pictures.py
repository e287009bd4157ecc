"""Overlays and film strips."""

import numpy as np
import pytest

from hvc.evaluation.pictures import film_strip, overlay


def test_only_objects_are_coloured(video):
    image, labels = video.frames[0], video.labels[0]
    drawn = np.asarray(overlay(image, labels))
    np.testing.assert_array_equal(drawn[labels == 0], image[labels == 0])
    assert (drawn[labels == 1] != image[labels == 1]).any(axis=1).all()


def test_alpha_zero_leaves_the_picture_inside_and_the_contour_is_white(video):
    image, labels = video.frames[0], video.labels[0]
    drawn = np.asarray(overlay(image, labels, alpha=0))
    np.testing.assert_array_equal(drawn[8:32, 12:36], image[8:32, 12:36])
    rim = drawn[6, 10:38]
    assert (rim == 255).all()


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("max_width", [300, 2000])
def test_a_strip_fits_and_never_scales_up(video, count, max_width):
    frames, labels = list(video.frames[:count]), list(video.labels[:count])
    titles = [f"frame {index}" for index in range(count)]
    one = film_strip(frames, labels, titles, max_width=max_width)
    two = film_strip(frames, labels, titles, truth=labels, max_width=max_width)
    assert one.width == two.width <= max_width
    assert one.width <= count * (96 + 6) + 6
    assert two.height > 1.5 * one.height
