"""Masks and frames as files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts import images
from hvc.evaluation.layouts.images import read_frame
from hvc.evaluation.layouts.masks import palette, read_mask, write_mask


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.integers(0, 255), min_size=1, max_size=20), seed=st.integers(0, 9))
def test_ids_survive_a_file(tmp_path_factory, ids, seed):
    path = tmp_path_factory.mktemp("masks") / "a" / "mask.png"
    labels = np.random.default_rng(seed).choice(np.array(ids, np.uint8), (7, 11))
    write_mask(path, labels)
    np.testing.assert_array_equal(read_mask(path), labels)


def test_the_palette_is_the_one_of_davis():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0)}
    for number, colour in known.items():
        assert tuple(palette()[number]) == colour
    assert tuple(palette()[255]) == (224, 224, 192)
    assert len({tuple(colour) for colour in palette().tolist()}) == 256


def test_written_masks_are_coloured(tmp_path):
    write_mask(tmp_path / "m.png", np.array([[0, 1, 2]], np.uint8))
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert np.asarray(image.convert("RGB")).tolist() == [[[0, 0, 0], [128, 0, 0], [0, 128, 0]]]


@pytest.mark.shared
def test_the_palette_of_a_real_mask(shared):
    path = shared / "data" / "stm_results" / "davis17" / "scooter-black" / "00000.png"
    with Image.open(path) as image:
        real = np.array(image.getpalette()).reshape(-1, 3)
    shown = np.unique(read_mask(path))
    assert shown.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(real[shown], palette()[shown])


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "LA"])
def test_black_and_white_masks_hold_one_object(tmp_path, mode):
    labels = np.array([[0, 255, 255], [0, 0, 255]], np.uint8)
    Image.fromarray(labels).convert(mode).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1, 1], [0, 0, 1]]


def test_other_grey_values_are_ids(tmp_path):
    labels = np.array([[0, 2, 255], [1, 0, 255]], np.uint8)
    Image.fromarray(labels).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), labels)


def test_pictures_are_no_masks(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "colour.png")
    with pytest.raises(HvcError, match=r"colour.png: a mask must be a palette or 8-bit grey PNG"):
        read_mask(tmp_path / "colour.png")
    Image.fromarray(noise[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(HvcError, match=r"grey.png: \d+ different values are too many"):
        read_mask(tmp_path / "grey.png")
    Image.fromarray(noise[..., 0].astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(HvcError, match=r"deep.png: a mask must be .* 8-bit grey PNG .*mode is I;16"):
        read_mask(tmp_path / "deep.png")


def test_damaged_missing_and_huge_files_are_named(tmp_path, monkeypatch):
    path = tmp_path / "frame.png"
    with pytest.raises(HvcError, match=r"no such file: .*frame.png"):
        read_frame(path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for length in (0, 10, 40, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(HvcError, match=r"frame.png: not a readable picture"):
            read_frame(path)
    path.write_bytes(whole)
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(HvcError, match=r"frame.png: 64 x 64 is more than"):
        read_frame(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HvcError, match=r"cannot write .*; free space or choose another output"):
        write_mask(tmp_path / "file" / "m.png", np.zeros((2, 2), np.uint8))
