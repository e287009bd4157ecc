"""Crop parameters, boxes and views equal the official code's for the same random numbers."""

import random
from typing import Any

import numpy as np
from PIL import Image

from hvc.pretrain.data.device_views import cut_views
from hvc.pretrain.data.packed import pack
from hvc.pretrain.data.views import STATISTICS, ViewOptions, crop_box, draw_crop, draw_views, make_view


def test_crops(golden: Any) -> None:
    data = golden.load("crops.npz")
    rng = random.Random(int(data["seed"]))
    for width, height in data["sizes_wh"].tolist():
        crops = [draw_crop(width, height, rng) for _ in range(200)]
        np.testing.assert_array_equal(crops, data[f"params_{width}x{height}"])
        boxes = [crop_box(crop, width, height) for crop in crops]
        np.testing.assert_array_equal(boxes, data[f"coord_{width}x{height}"])


def test_views(golden: Any) -> None:
    data = golden.load("crops.npz")
    rng = random.Random(int(data["view_seed"]))
    mean, std = (np.array(values, np.float32) for values in STATISTICS["cifar10"])
    for number in range(3):
        image = Image.fromarray(data[f"view_img{number}"])
        for j in range(2):
            view = make_view(image, 256, rng)
            pixels = ((view.pixels.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)
            expected = data[f"view_sub{number}_{j}"]
            np.testing.assert_allclose(pixels[:, ::8, ::8], expected, atol=1 / 255 / std.min())
            # All but a few pixels are equal to the last bit of the decoder's rounding.
            assert (np.abs(pixels[:, ::8, ::8] - expected) < 1e-5).mean() > 0.999
            stats = [pixels.mean(), pixels.std(), pixels.min(), pixels.max()]
            np.testing.assert_allclose(stats, data[f"view_stats{number}_{j}"], atol=1e-3)
            np.testing.assert_array_equal(view.box, data[f"view_coord{number}"][j])


def test_device_views(golden: Any) -> None:
    data = golden.load("crops.npz")
    rng = random.Random(int(data["view_seed"]))
    mean, std = (np.array(values, np.float32) for values in STATISTICS["cifar10"])
    images = [Image.fromarray(data[f"view_img{number}"]) for number in range(3)]
    draws = [draw_views((image.size, image.size), rng, ViewOptions()) for image in images]
    views = cut_views(pack(images, draws), 256)
    for number in range(3):
        for j in range(2):
            np.testing.assert_array_equal(np.float32(draws[number][j].box), data[f"view_coord{number}"][j])
            pixels = ((views[j][number].numpy().astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)
            np.testing.assert_allclose(pixels[:, ::8, ::8], data[f"view_sub{number}_{j}"], atol=1e-5)
