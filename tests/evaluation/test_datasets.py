"""Folders of the supported layouts, complete and broken."""

import numpy as np
import pytest
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.datasets import read_davis2016, read_folder
from hvc.evaluation.masks import write_mask
from hvc.evaluation.sequences import list_frames, read_annotations


def davis(root, *names, frames=3):
    for name in names:
        for index in range(frames):
            picture = root / "JPEGImages" / "480p" / name / f"{index:05d}.jpg"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6)).save(picture)
            mask = root / "Annotations" / "480p" / name / f"{index:05d}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 8), 255 * (index > 0), np.uint8)).save(mask)
    return root


def test_davis_without_a_list_gives_what_is_there(tmp_path):
    sequences = read_davis2016(davis(tmp_path, "swan", "bear"))
    assert [sequence.name for sequence in sequences] == ["bear", "swan"]
    bear = sequences[0]
    assert bear.single_object
    assert bear.annotated
    assert [path.name for path in bear.frames] == ["00000.jpg", "00001.jpg", "00002.jpg"]
    assert bear.masks == {0: bear.annotations[0]}
    assert read_annotations(bear).max(axis=(1, 2)).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "480p",
            "/JPEGImages/480p/swan/00000.jpg /Annotations/480p/swan/00000.png\n" * 2
            + "/JPEGImages/480p/gone/00000.jpg /Annotations/480p/gone/00000.png\n",
        ),
        ("2016", "swan\ngone\n\n"),
    ],
)
def test_davis_keeps_to_the_validation_list(tmp_path, name, text):
    root = davis(tmp_path, "swan", "bear")
    (root / "ImageSets" / name).mkdir(parents=True)
    (root / "ImageSets" / name / "val.txt").write_text(text)
    assert [sequence.name for sequence in read_davis2016(root)] == ["swan"]
    assert [sequence.name for sequence in read_davis2016(root, ["bear", "swan", "bear"])] == [
        "bear",
        "swan",
    ]
    (root / "ImageSets" / name / "val.txt").write_text("gone\n")
    with pytest.raises(HvcError, match=r"holds no sequence of the benchmark.s list \(gone\); it has: bear, swan"):
        read_davis2016(root)


def test_davis_names_what_is_missing(tmp_path):
    with pytest.raises(HvcError, match=r"is not a DAVIS folder: expected .*JPEGImages/480p$"):
        read_davis2016(tmp_path)
    root = davis(tmp_path, "swan", frames=4)
    with pytest.raises(HvcError, match="has no sequence goose; it has: swan"):
        read_davis2016(root, ["goose"])
    (root / "JPEGImages" / "480p" / "swan" / "00003.jpg").unlink()
    with pytest.raises(HvcError, match=r"swan/00003.png has no frame"):
        read_davis2016(root)
    (root / "Annotations" / "480p" / "swan" / "00003.png").unlink()
    (root / "Annotations" / "480p" / "swan" / "00001.png").unlink()
    with pytest.raises(HvcError, match=r"no annotation .*swan/00001.png"):
        read_davis2016(root)
    for path in (root / "JPEGImages" / "480p" / "swan").iterdir():
        path.unlink()
    with pytest.raises(HvcError, match="swan holds no frames"):
        read_davis2016(root)


@pytest.mark.shared
def test_the_real_davis(shared):
    sequences = read_davis2016(shared / "data" / "davis2016")
    lengths = {sequence.name: len(sequence.frames) for sequence in sequences}
    assert lengths == {"blackswan": 50, "car-shadow": 40, "libby": 49, "scooter-black": 43}
    assert read_annotations(sequences[1]).shape == (40, 480, 854)
    assert set(np.unique(read_annotations(sequences[1]))) == {0, 1}


def test_one_folder_or_many(tmp_path, video):
    one = video.write(tmp_path / "mine" / "one")
    video.write(tmp_path / "mine" / "two", masks=1, suffix="png")
    (alone,) = read_folder(one)
    assert alone.name == "one"
    assert alone.annotated
    np.testing.assert_array_equal(read_annotations(alone), video.labels)
    first, second = read_folder(tmp_path / "mine")
    assert (first.name, second.name) == ("one", "two")
    assert not second.annotated
    assert second.masks == {0: second.annotations[0]}
    with pytest.raises(HvcError, match=r"sequence two: 00001.png has no annotation"):
        read_annotations(second)


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
    with pytest.raises(HvcError, match=r"00003.png: 5 x 4 pixels, but .*00000.png is 96 x 72"):
        read_annotations(read_folder(folder)[0])
