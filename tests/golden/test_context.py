"""Context lists and the neighbourhood rule against the official code's."""

import re

import numpy as np
import pytest
import torch

from hvc.evaluation.propagation.context import context_frames, grid, within_radius

pytestmark = pytest.mark.shared


def test_context_frames_are_the_official_lists(golden):
    lists = {k: v for k, v in np.load(golden.common("radius_context.npz")).items() if k.startswith("ctx")}
    assert len(lists) == 6
    for key, expected in lists.items():
        reference, t, size = map(int, re.fullmatch(r"ctx_t0(\d+)_t(\d+)_n(\d+)", key).groups())
        assert context_frames(reference, t, size) == expected.tolist(), key


def test_neighbourhoods_are_the_official_masks(golden):
    data = np.load(golden.common("radius_context.npz"))
    masks = [key for key in data if key.startswith("mask")]
    assert len(masks) == 4
    for key in masks:
        height, width, radius = re.fullmatch(r"mask_(\d+)x(\d+)_r([\d.]+)", key).groups()
        h, w = int(height), int(width)
        cells = grid(slice(0, h), slice(0, w), torch.device("cpu"))
        ours = within_radius(cells, cells, float(radius)).numpy()
        expected = np.unpackbits(data[key])[: (h * w) ** 2].reshape(h * w, h * w)
        counts = data[key.replace("mask", "count")].ravel()
        if (expected.sum(1) != counts).any():  # stored as the set that is forbidden
            expected = 1 - expected
        assert (expected.sum(1) == counts).all()
        assert (ours == expected).all(), key
