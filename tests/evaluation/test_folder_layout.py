"""A person's own videos, and what all lists of frames and annotations are held to."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.checks import check_sequences
from hvc.evaluation.layouts.folder import folder_names, read_folder, read_folder_sequences
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.sequences import list_frames
from hvc.evaluation.metrics.scored_masks import annotation


def test_one_folder_or_many(tmp_path, video):
    one = video.write(tmp_path / "mine" / "one")
    video.write(tmp_path / "mine" / "two", masks=1, suffix="png")
    (alone,) = read_folder(one)
    assert alone.name == "one"
    assert alone.annotated
    masks = [alone.read_mask(path) for path in alone.annotations if path is not None]
    np.testing.assert_array_equal(masks, video.labels)
    first, second = read_folder(tmp_path / "mine")
    assert (first.name, second.name) == ("one", "two")
    assert not second.annotated
    assert second.masks == {0: second.annotations[0]}
    with pytest.raises(HvcError, match=r"sequence two: 00001.png has no annotation"):
        annotation(second, 1)


def test_links_keep_their_names(tmp_path, video):
    for name in ("a", "b"):
        folder = video.write(tmp_path / name / "clip")
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "links" / name).symlink_to(folder)
    assert folder_names(tmp_path / "links") == ["a", "b"]
    assert len(read_folder_sequences(tmp_path / "links")) == 2


def test_a_folder_may_be_named_by_a_dot(tmp_path, video, monkeypatch):
    monkeypatch.chdir(video.write(tmp_path / "clip"))
    assert folder_names(Path()) == ["clip"]


def test_hidden_files_are_no_masks(tmp_path, video):
    folder = video.write(tmp_path / "clip")
    (folder / "masks" / "._00000.png").write_bytes(b"what macOS leaves behind")
    (sequence,) = read_folder(folder)
    assert sequence.annotated


def test_frames_and_one_mask_side_by_side(tmp_path, video):
    for index in (2, 10, 1):
        Image.fromarray(video.frames[0]).save(tmp_path / f"shot{index}.jpg")
    write_mask(tmp_path / "shot1.png", video.labels[0])
    (sequence,) = read_folder(tmp_path)
    assert sequence.name == tmp_path.name
    assert [path.name for path in sequence.frames] == ["shot1.jpg", "shot2.jpg", "shot10.jpg"]
    assert sequence.masks == {0: tmp_path / "shot1.png"}


def test_a_folder_says_what_belongs_there(tmp_path, video):
    with pytest.raises(HvcError, match="no such folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(HvcError, match="holds no sequence: expected frames/"):
        read_folder(tmp_path)
    folder = video.write(tmp_path / "square")
    (folder / "masks" / "00000.png").rename(folder / "masks" / "stranger.png")
    with pytest.raises(HvcError, match=r"no mask .*00000.png for the first frame"):
        read_folder(folder)
    write_mask(folder / "masks" / "00000.png", video.labels[0])
    with pytest.raises(HvcError, match=r"stranger.png: there is no frame of that name"):
        read_folder(folder)


def test_a_frame_that_is_there_twice(tmp_path):
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    with pytest.raises(HvcError, match="the same frame twice"):
        list_frames(tmp_path)


def test_annotations_of_other_sizes_are_named(tmp_path, video):
    folder = video.write(tmp_path / "square")
    write_mask(folder / "masks" / "00003.png", np.zeros((4, 5), np.uint8))
    with pytest.raises(HvcError, match=r"00003.png is 5 x 4 pixels, but the video is 96 x 72 .*00000.jpg"):
        check_sequences(read_folder(folder))


def test_some_of_many(tmp_path, video):
    for name in ("one", "two", "three"):
        video.write(tmp_path / name)
    assert folder_names(tmp_path) == ["one", "three", "two"]
    assert [item.name for item in read_folder_sequences(tmp_path, ["two", "one", "two"])] == ["two", "one"]
    with pytest.raises(HvcError, match="has no sequence four; it has: one, three, two"):
        read_folder_sequences(tmp_path, ["four"])
