"""What is wrong with a video is said before it is propagated, with its name."""

import numpy as np
import pytest
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.checks import check_sequence, check_sequences
from hvc.evaluation.layouts.davis import read_davis2016
from hvc.evaluation.layouts.folder import read_folder
from hvc.evaluation.layouts.masks import write_mask

from evaluation_video import make_video  # isort: skip


def test_good_videos_pass(tmp_path, two_objects):
    two_objects.write(tmp_path / "clips" / "all")
    two_objects.write(tmp_path / "clips" / "first", masks=1)
    make_video(frames=2).write(tmp_path / "clips" / "short", masks=1)
    check_sequences(read_folder(tmp_path / "clips"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda clip: write_mask(clip / "masks" / "00005.png", np.ones((4, 5), np.uint8)),
            "00005.png is 5 x 4 pixels, but the video is 96 x 72",
        ),
        (
            lambda clip: (clip / "masks" / "00004.png").write_bytes(b"?"),
            "00004.png: not a readable picture",
        ),
        (
            lambda clip: (clip / "frames" / "00004.jpg").write_bytes(b"?"),
            "00004.jpg: not a readable picture",
        ),
        (lambda clip: Image.new("RGB", (8, 8)).save(clip / "frames" / "00003.jpg"), "00003.jpg is 8 x 8"),
        (
            lambda clip: write_mask(clip / "masks" / "00000.png", np.zeros((72, 96), np.uint8)),
            "its masks show no object",
        ),
    ],
    ids=["size", "annotation", "frame", "frame's size", "no object"],
)
def test_a_spoilt_file_is_named_with_its_sequence(tmp_path, video, spoil, message):
    clip = video.write(tmp_path / "clip")
    (sequence,) = read_folder(clip)
    spoil(clip)
    with pytest.raises(HvcError, match=rf"^sequence clip: (?!sequence).*{message}"):
        check_sequence(sequence)


def test_two_annotated_frames_cannot_be_scored(tmp_path):
    (sequence,) = read_folder(make_video(frames=2).write(tmp_path / "clip"))
    with pytest.raises(HvcError, match=r"^sequence clip: 2 annotated frames: .* 3 are needed"):
        check_sequence(sequence)


def test_all_sequences_are_looked_at(tmp_path, video):
    for name in ("a", "b", "c"):
        video.write(tmp_path / "clips" / name)
    sequences = read_folder(tmp_path / "clips")
    for name in ("a", "c"):
        (tmp_path / "clips" / name / "masks" / "00003.png").write_bytes(b"?")
    with pytest.raises(HvcError, match=r"sequence a: .*\nsequence c: ") as caught:
        check_sequences(sequences)
    assert "sequence b" not in str(caught.value)


@pytest.mark.shared
def test_the_real_davis_passes(shared):
    check_sequences(read_davis2016(shared / "data" / "davis2016"))
