"""Fixed images: which samples, always the same, and what becomes of corrupt ones."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from training_data import number_of, numbered, write_dataset

from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.drawing.probe import TRIES, centre_square, probe_images, probe_samples
from hvc.pretrain.recipe import TrainConfig

BROKEN = b"\x89PNG\r\n\x1a\n but no more"


def shown(folder, count=6, **recipe):
    config = TrainConfig.parse({"data": str(folder), "views": {"size": 64}} | recipe)
    images = probe_images(load_data(config), config, count)
    assert images.dtype == torch.uint8
    assert tuple(images.shape[1:]) == (64, 64, 3)
    return [number_of(image.numpy()) for image in images]


@given(st.integers(0, 10_000), st.integers(0, 12))
def test_samples_are_spread_and_none_is_tried_twice(samples, count):
    places = probe_samples(samples, count)
    assert len(places) == min(samples, count)
    tried = [number for place in places for number in place]
    assert all(1 <= len(place) <= TRIES for place in places)
    assert tried == sorted(set(tried))
    assert all(0 <= number < samples for number in tried)
    gaps = np.diff([place[0] for place in places])
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 2


def test_the_same_images_whatever_else_the_recipe_says(tmp_path):
    write_dataset(tmp_path / "set", [numbered(number) for number in range(60)], 7)
    expected = [4, 14, 24, 34, 44, 54]
    assert shown(tmp_path / "set") == expected
    assert shown(tmp_path / "set", batch_size=3, seed=7, workers=4, shuffle=False, subset=5) == expected


def test_a_corrupt_image_is_passed_over_for_the_next_one(tmp_path):
    images = [BROKEN if number in (14, 15) else numbered(number) for number in range(60)]
    write_dataset(tmp_path / "set", images, 20)
    shard = tmp_path / "set" / "shard-000001.tar"
    content = shard.read_bytes()
    altered = numbered(34)
    assert content.count(altered) == 1
    shard.write_bytes(content.replace(altered, altered[:-20] + bytes(20)))  # not what the index says
    assert shown(tmp_path / "set") == [4, 16, 24, 35, 44, 54]


@pytest.mark.parametrize(("good", "expected"), [(set(), []), ({0}, [0]), ({2}, [2])])
def test_few_good_images_are_all_there_is(tmp_path, good, expected):
    write_dataset(tmp_path / "set", [numbered(n) if n in good else BROKEN for n in range(3)], 3)
    assert shown(tmp_path / "set") == expected


def test_the_square_is_the_middle():
    image = Image.new("RGB", (300, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    square = np.asarray(centre_square(image, 32))
    assert square.shape == (32, 32, 3)
    assert (square == (0, 0, 255)).all()
