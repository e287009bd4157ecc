"""From the files of a video to its labels."""

import dataclasses

import numpy as np
import pytest
from dense_measures import measure_video
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.folder import read_folder
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.sequences import object_ids
from hvc.evaluation.propagation.features import Encoder
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.propagation.video import propagate


@pytest.fixture(scope="module")
def encoder():
    return Encoder.untrained(0)


def labels_of(sequence, encoder, protocol=None):
    return np.stack([frame.labels for frame in propagate(sequence, encoder, protocol or Protocol())])


def test_an_easy_video_is_followed_even_by_random_features(tmp_path, video, encoder):
    (sequence,) = read_folder(video.write(tmp_path / "square"))
    labels = labels_of(sequence, encoder)
    assert labels.dtype == np.uint8
    assert labels.shape == video.labels.shape
    region, _ = measure_video(video.labels, labels, [1])
    assert region.mean() > 0.7


def test_ids_come_back_as_they_were_given(tmp_path, two_objects, encoder):
    (sequence,) = read_folder(two_objects.write(tmp_path / "squares"))
    assert object_ids(sequence).tolist() == [0, 3, 200]
    labels = labels_of(sequence, encoder)
    assert set(np.unique(labels)) == {0, 3, 200}
    for number in (3, 200):
        truth, found = two_objects.labels == number, labels == number
        assert (truth & found).sum() > 0.4 * truth.sum()


def test_labels_keep_the_size_of_the_video_whatever_the_networks_input(tmp_path, video, encoder):
    (sequence,) = read_folder(video.write(tmp_path / "square"))
    labels = labels_of(sequence, encoder, Protocol(input_size=48))
    assert labels.shape == video.labels.shape


@pytest.mark.parametrize(("choice", "same"), [("given", True), ("resampled", False)])
def test_the_first_frame_as_given_or_through_the_grid(tmp_path, video, encoder, choice, same):
    (sequence,) = read_folder(video.write(tmp_path / "square"))
    first = next(propagate(sequence, encoder, Protocol(first_frame=choice))).labels
    assert (first == video.labels[0]).all() == same
    assert (first == video.labels[0]).mean() > 0.9


def test_void_pixels_belong_to_nobody(tmp_path, video, encoder):
    masked = video.labels[0].copy()
    masked[:, :6] = 255
    folder = video.write(tmp_path / "square", masks=1)
    write_mask(folder / "masks" / "00000.png", masked)
    (sequence,) = read_folder(folder)
    first = next(propagate(sequence, encoder, Protocol(first_frame="given"))).labels
    assert set(np.unique(first)) == {0, 1}
    assert set(np.unique(labels_of(sequence, encoder))) == {0, 1}


def test_an_object_that_appears_later(tmp_path, two_objects, encoder):
    video = two_objects
    first = video.labels[0].copy()
    first[first == 200] = 0
    folder = video.write(tmp_path / "squares")
    write_mask(folder / "masks" / "00000.png", first)
    (sequence,) = read_folder(folder)
    late = dataclasses.replace(sequence, masks={0: sequence.masks[0], 3: folder / "masks" / "00003.png"})
    labels = labels_of(late, encoder)
    shown = [int((frame == 200).sum()) for frame in labels]
    assert shown[:3] == [0, 0, 0]
    assert min(shown[3:]) > 0.25 * 28 * 28


def test_frames_are_decoded_one_at_a_time_and_stop_is_heard(tmp_path, video, encoder):
    folder = video.write(tmp_path / "square")
    (sequence,) = read_folder(folder)
    (folder / "frames" / "00004.jpg").write_bytes(b"not a picture")
    seen = []
    for frame in propagate(sequence, encoder, Protocol(), stop=lambda: len(seen) == 3):
        seen.append(frame.index)
    assert seen == [0, 1, 2]
    with pytest.raises(HvcError, match=r"00004.jpg: not a readable picture"):
        labels_of(sequence, encoder)


def test_frames_and_masks_of_other_sizes_are_named(tmp_path, video, encoder):
    folder = video.write(tmp_path / "square")
    (sequence,) = read_folder(folder)
    Image.new("RGB", (80, 60)).save(folder / "frames" / "00002.jpg")
    with pytest.raises(HvcError, match=r"00002.jpg is 80 x 60 pixels, but the video is 96 x 72"):
        labels_of(sequence, encoder)
    write_mask(folder / "masks" / "00000.png", np.ones((60, 80), np.uint8))
    with pytest.raises(HvcError, match=r"masks.00000.png is 80 x 60"):
        labels_of(sequence, encoder)


def test_a_mask_without_objects_is_an_error(tmp_path, video, encoder):
    folder = video.write(tmp_path / "square")
    write_mask(folder / "masks" / "00000.png", np.zeros((72, 96), np.uint8))
    with pytest.raises(HvcError, match=r"no object .*00000.png"):
        labels_of(read_folder(folder)[0], encoder)
