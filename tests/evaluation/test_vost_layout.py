"""VOST as downloaded: labels travel at 10 frames a second, every other frame is annotated."""

import shutil

import numpy as np
import pytest
from evaluation_layouts import davis2017, vost, youtube_vos
from evaluation_video import make_video

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.checks import check_sequences
from hvc.evaluation.layouts.vost import read_vost, vost_names


def test_annotated_frames_are_results_and_the_others_lead_to_them(tmp_path):
    root = vost(tmp_path, "1_cut_tomato", "2_peel")
    first, _ = read_vost(root)
    assert vost_names(root) == ["1_cut_tomato", "2_peel"]
    assert first.frames[0].is_relative_to(root / "JPEGImages_10fps")
    assert (len(first.frames), first.results) == (
        7,
        [0, 2, 4, 6],
    )  # the 8th is after the last annotated one
    assert list(first.masks) == [0]
    assert first.annotated
    masks = [first.read_mask(first.annotations[index]) for index in first.results]
    np.testing.assert_array_equal(masks, make_video(8, ids=(1, 2)).labels[::2])
    check_sequences([first])


def test_without_10_frames_a_second_all_frames_are_annotated(tmp_path):
    (sequence,) = read_vost(vost(tmp_path, "1_cut_tomato", ten=False))
    assert sequence.results == [0, 1, 2, 3]
    assert sequence.annotated


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("ImageSets/val.txt", r"expected .*ImageSets/val.txt"),
        ("Annotations", r"expected .*/Annotations"),
        ("JPEGImages_10fps/2_peel", r"lacks 1 of 2 sequences"),
        (
            "JPEGImages_10fps/2_peel/frame00012.jpg",
            r"frame00012.png has no frame: expected .*frame00012.jpg",
        ),
        ("Annotations/2_peel", r"sequence 2_peel: expected its masks at .*Annotations/2_peel/FRAME.png"),
    ],
)
def test_what_is_missing_is_named(tmp_path, caplog, gone, message):
    path = vost(tmp_path, "1_cut_tomato", "2_peel") / gone
    path.unlink() if path.is_file() else shutil.rmtree(path)
    if message.startswith("lacks"):
        assert [sequence.name for sequence in read_vost(tmp_path)] == ["1_cut_tomato"]
        assert message in caplog.text
        return
    with pytest.raises(HvcError, match=message):
        read_vost(tmp_path)


def test_other_layouts_are_recognised(tmp_path):
    with pytest.raises(HvcError, match=r"this is DAVIS"):
        read_vost(davis2017(tmp_path / "davis", "blackswan"))
    with pytest.raises(HvcError, match=r"this is YouTube-VOS"):
        read_vost(youtube_vos(tmp_path / "youtube") / "valid")
    vost(tmp_path / "VOST", "1_cut_tomato")
    with pytest.raises(HvcError, match=r"one folder too high, take .*/VOST$"):
        read_vost(tmp_path)
