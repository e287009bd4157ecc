"""Frames are decoded ahead of their use: a few, in order, and what is wrong is said when it is reached."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.decode import AHEAD, decode_frames
from hvc.evaluation.layouts.folder import read_folder

from evaluation_video import make_video  # isort: skip


@pytest.fixture
def sequence(tmp_path):
    return read_folder(make_video(AHEAD + 5).write(tmp_path / "square", suffix="png"))[0]


def decoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_frames_come_in_order_with_the_given_masks(sequence):
    video = make_video(AHEAD + 5)
    frames = list(decode_frames(sequence))
    assert [frame.index for frame in frames] == list(range(AHEAD + 5))
    np.testing.assert_array_equal([frame.image for frame in frames], video.frames)
    np.testing.assert_array_equal(frames[0].mask, video.labels[0])
    assert all(frame.mask is None for frame in frames[1:])
    masks = {2: sequence.annotations[2]}
    np.testing.assert_array_equal(list(decode_frames(sequence, masks))[2].mask, video.labels[2])


def test_a_few_frames_wait_decoded_and_no_more(sequence):
    frames = decode_frames(sequence)
    assert next(frames).index == 0
    time.sleep(1)  # the thread is done with what it may
    for path in sequence.frames:
        path.unlink()
    assert [next(frames).index for _ in range(AHEAD - 1)] == list(range(1, AHEAD))
    with pytest.raises(HvcError, match=rf"no such file: .*{AHEAD:05d}.png"):
        next(frames)


def test_an_error_waits_for_its_frame(sequence):
    sequence.frames[2].write_bytes(b"not a picture")
    Image.new("RGB", (8, 8)).save(sequence.frames[4])
    seen = []
    with pytest.raises(HvcError, match=r"00002.png: not a readable picture"):
        seen.extend(frame.index for frame in decode_frames(sequence))
    frames = decode_frames(sequence)
    assert [next(frames).index, next(frames).index] == [0, 1]
    with pytest.raises(HvcError, match=r"00002.png"):
        next(frames)


def test_nothing_is_left_when_the_iteration_is_given_up(sequence):
    before = len(decoders())
    frames = decode_frames(sequence)
    next(frames)
    assert len(decoders()) == before + 1
    frames.close()
    assert len(decoders()) == before
