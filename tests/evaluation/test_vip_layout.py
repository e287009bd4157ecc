"""VIP as downloaded: masks of twenty classes for every frame, seen by the method or not."""

import shutil

import numpy as np
import pytest
from evaluation_layouts import put_frame, put_list, vip

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.checks import check_sequences
from hvc.evaluation.layouts.masks import read_mask
from hvc.evaluation.layouts.sequences import object_ids
from hvc.evaluation.layouts.vip import CLASSES, read_vip, vip_names
from hvc.evaluation.propagation.features import PixelExtractor
from hvc.evaluation.propagation.presets import PRESETS
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.propagation.video import propagate


def test_every_frame_has_classes(tmp_path):
    root = vip(tmp_path, "videos1", "videos338", "videos2")
    put_list(root / "lists" / "val_videos.txt", "videos338", "videos1")
    sequences = read_vip(root)
    assert [sequence.name for sequence in sequences] == ["videos338", "videos1"] == vip_names(root)
    first = sequences[0]
    assert [path.stem for path in first.frames[:2]] == ["000000000001", "000000000026"]
    assert first.annotated
    assert (len(CLASSES), first.classes) == (20, 20)
    assert object_ids(first).tolist() == [0, 2, 13]
    check_sequences(sequences)


@pytest.mark.parametrize(("late", "shown"), [("inject", {0, 2, 13}), ("never", {0, 2})])
def test_classes_that_the_first_frame_lacks(tmp_path, late, shown):
    (sequence,) = read_vip(vip(tmp_path, "videos1"))
    labels = [frame.labels for frame in propagate(sequence, PixelExtractor(), Protocol(late_objects=late))]
    assert set(np.unique(labels[0])) == {0, 2}
    assert set(np.unique(labels[1:])) == shown


def test_the_usual_protocol_is_560_pixels_square_and_labels_keep_the_videos_size(tmp_path):
    (sequence,) = read_vip(vip(tmp_path, "videos1"))
    seen = []

    class Watched(PixelExtractor):
        def features(self, image, input_size=None, resize="aligned"):
            found = super().features(image, input_size, resize)
            seen.append((*found.shape[1:], resize))
            return found

    labels = next(propagate(sequence, Watched(), PRESETS["crw-vip"])).labels
    assert seen[0] == (70, 70, "half-pixel")
    np.testing.assert_array_equal(labels, read_mask(sequence.masks[0]))


def test_ids_that_are_no_classes_are_nobodys(tmp_path):
    (sequence,) = read_vip(vip(tmp_path, "videos1"))
    mask = read_mask(sequence.masks[0])
    mask[:6] = 20
    mask[6:8] = 255
    put_frame(sequence.masks[0], mask)
    assert object_ids(sequence).tolist() == [0, 2, 13]
    for choice in ("given", "resampled"):
        first = next(propagate(sequence, PixelExtractor(), Protocol(first_frame=choice))).labels
        assert set(np.unique(first)) == {0, 2}


def test_a_first_frame_without_anybody_is_no_error(tmp_path):
    (sequence,) = read_vip(vip(tmp_path, "videos1"))
    put_frame(sequence.masks[0], np.zeros((72, 96), np.uint8))
    check_sequences([sequence])
    labels = [frame.labels for frame in propagate(sequence, PixelExtractor(), PRESETS["crw-vip"])]
    assert not np.any(labels)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("lists", r"not a VIP folder: expected .*lists/val_videos.txt"),
        ("Images", r"expected .*/Images"),
        ("Images/videos1/000000000026.jpg", r"000000000026.png has no frame: expected .*000000000026.jpg"),
        ("Annotations/Category_ids/videos1/000000000026.png", r"no annotation .*videos1/000000000026.png"),
    ],
)
def test_what_is_missing_is_named(tmp_path, gone, message):
    path = vip(tmp_path, "videos1") / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(HvcError, match=message):
        read_vip(tmp_path)


def test_other_layouts_are_recognised(tmp_path):
    root = vip(tmp_path / "VIP" / "VIP_Fine", "videos1")
    with pytest.raises(HvcError, match=r"one folder too high, take .*VIP/VIP_Fine$"):
        read_vip(tmp_path / "VIP")
    with pytest.raises(HvcError, match=r"one folder too low, take .*VIP/VIP_Fine$"):
        read_vip(root / "Annotations" / "Category_ids")
    (root / "Annotations" / "Category_ids").rename(root / "Annotations" / "Human_ids")
    with pytest.raises(HvcError, match=r"Human_ids: masks of persons, not of classes"):
        read_vip(root)
