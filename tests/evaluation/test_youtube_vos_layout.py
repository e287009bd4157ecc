"""YouTube-VOS as downloaded: every frame propagated, every fifth written, objects that appear late."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluation_layouts import davis2017, vost, youtube_vos
from evaluation_video import Video, make_video
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.layouts.checks import check_sequences
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.sequences import Sequence, object_ids
from hvc.evaluation.propagation.features import PixelExtractor
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.propagation.video import copy_first, propagate

NAME = "0a49f5265b"
READ = BENCHMARKS["youtube-vos-2018"].read


def stems(paths):
    return [path.stem for path in paths]


def test_every_frame_is_propagated_and_every_fifth_a_result(tmp_path):
    (video,) = READ(youtube_vos(tmp_path), None)
    assert video.name == NAME
    assert stems(video.frames) == [
        f"{index:05d}" for index in range(11)
    ]  # the 12th is after the last result
    assert video.frames[0].is_relative_to(tmp_path / "valid_all_frames")
    assert video.results == [0, 5, 10]
    assert {index: path.stem for index, path in video.masks.items()} == {0: "00000", 5: "00005"}
    assert object_ids(video).tolist() == [0, 3, 200]
    assert not video.annotated
    check_sequences([video])


@pytest.mark.parametrize("where", ["all_frames/valid_all_frames", "valid_all_frames"])
def test_where_all_frames_may_lie(tmp_path, monkeypatch, where):
    youtube_vos(tmp_path)
    if where.startswith("all"):
        (tmp_path / "all_frames").mkdir()
        (tmp_path / "valid_all_frames").rename(tmp_path / where)
    monkeypatch.chdir(tmp_path / "valid")
    for root in (tmp_path, tmp_path / "valid", Path()):
        (video,) = READ(root, None)
        assert len(video.frames) == 11
        assert video.results == [0, 5, 10]


def test_without_all_frames_labels_travel_from_result_to_result(tmp_path):
    (video,) = READ(youtube_vos(tmp_path, every=False), None)
    assert stems(video.frames) == ["00000", "00005", "00010"]
    assert video.results == [0, 1, 2]
    assert list(video.masks) == [0, 1]


def test_without_the_fifth_frames_meta_json_says_what_is_a_result(tmp_path):
    shutil.rmtree(youtube_vos(tmp_path) / "valid" / "JPEGImages")
    assert READ(tmp_path, None)[0].results == [0, 5, 10]
    (tmp_path / "valid" / "meta.json").unlink()
    with pytest.raises(HvcError, match=r"which of its frames are results\? Expected .*valid/JPEGImages"):
        READ(tmp_path, None)


def test_a_mask_that_meta_json_promises_is_missed(tmp_path, caplog):
    (youtube_vos(tmp_path) / "valid" / "Annotations" / NAME / "00005.png").unlink()
    assert list(READ(tmp_path, None)[0].masks) == [0]
    assert f"object 200 starts at {tmp_path}/valid/Annotations/{NAME}/00005.png" in caplog.text


def test_videos_that_are_named_or_not_there(tmp_path, caplog):
    youtube_vos(youtube_vos(tmp_path), "ffff", video=make_video(12))
    assert [video.name for video in READ(tmp_path, ["ffff"])] == ["ffff"]
    shutil.rmtree(tmp_path / "valid" / "Annotations" / "ffff")
    assert [video.name for video in READ(tmp_path, None)] == [NAME]
    assert "lacks 1 of 2 sequences: ffff" in caplog.text
    with pytest.raises(HvcError, match="has no sequence ffff; it has: 0a49"):
        READ(tmp_path, ["ffff"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v, a: (a / NAME / "00005.jpg").unlink(), r"00005.png has no frame: expected .*00005.jpg"),
        (lambda v, a: (a / NAME / "00010.jpg").unlink(), r"expected frame .*valid_all_frames.*00010.jpg"),
        (
            lambda v, a: [path.unlink() for path in (v / "Annotations" / NAME).iterdir()],
            r"expected the masks of its objects at .*valid/Annotations/0a49f5265b/FRAME.png",
        ),
        (
            lambda v, a: shutil.rmtree(v / "Annotations"),
            r"not a YouTube-VOS folder: expected .*Annotations",
        ),
        (
            lambda v, a: (shutil.rmtree(v / "JPEGImages"), shutil.rmtree(a)),
            r"masks but no frames: expected .*valid_all_frames/JPEGImages or .*valid/JPEGImages",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, spoil, message):
    youtube_vos(tmp_path)
    spoil(tmp_path / "valid", tmp_path / "valid_all_frames" / "JPEGImages")
    with pytest.raises(HvcError, match=message):
        READ(tmp_path, None)


def test_other_layouts_are_recognised(tmp_path):
    youtube_vos(tmp_path / "data" / "YouTube-VOS")
    with pytest.raises(HvcError, match=r"one folder too high, take .*data/YouTube-VOS$"):
        READ(tmp_path / "data", None)
    with pytest.raises(HvcError, match=r"one folder too low, take .*data/YouTube-VOS$"):
        READ(tmp_path / "data" / "YouTube-VOS" / "valid" / "JPEGImages", None)
    with pytest.raises(HvcError, match=r"laid out like DAVIS \(davis2016, "):
        READ(davis2017(tmp_path / "davis", "blackswan"), None)
    with pytest.raises(HvcError, match=r"laid out like VOST \(vost\)"):
        READ(vost(tmp_path / "vost", "1_cut"), None)


def test_the_years_are_told_apart_by_their_number_of_videos(tmp_path):
    valid = youtube_vos(tmp_path, meta=False) / "valid"
    videos = {f"{number:010x}": {"objects": {}} for number in range(507)}
    (valid / "meta.json").write_text(json.dumps({"videos": videos}))
    with pytest.raises(HvcError, match=r"the 507 videos of 2019: take youtube-vos-2019"):
        READ(tmp_path, None)
    with pytest.raises(HvcError, match="holds no sequence of the benchmark's list"):
        BENCHMARKS["youtube-vos-2019"].read(tmp_path, None)


@pytest.mark.shared
def test_two_real_videos(shared):
    videos = READ(shared / "data" / "youtube_vos", None)
    assert {video.name: (len(video.frames), list(video.masks)) for video in videos} == {
        "19904980af": (19, [0]),
        "4df42f72c9": (29, [0]),
    }
    assert sorted(len(object_ids(video)) - 1 for video in videos) == [1, 3]
    check_sequences(videos)


@pytest.fixture(scope="module")
def davis_as_youtube_vos(shared, tmp_path_factory):
    """Sixteen real frames of DAVIS at half their size; a second object appears at frame 5."""
    root = tmp_path_factory.mktemp("youtube_vos")
    folder = shared / "data" / "davis2016"
    name = "blackswan"
    frames, masks = [], []
    for index in range(16):
        frame = Image.open(folder / "JPEGImages" / "480p" / name / f"{index:05d}.jpg")
        mask = Image.open(folder / "Annotations" / "480p" / name / f"{index:05d}.png")
        frames.append(np.asarray(frame.resize((frame.width // 2, frame.height // 2))))
        masks.append(np.asarray(mask.resize(frames[-1].shape[1::-1], Image.Resampling.NEAREST)) > 0)
    labels = np.stack(masks).astype(np.uint8)
    labels[:, :, : labels.shape[2] // 2][labels[:, :, : labels.shape[2] // 2] == 1] = (
        2  # the swan's one half
    )
    return youtube_vos(root, name, Video(np.stack(frames), labels)), labels


@pytest.mark.shared
def test_real_frames_in_this_layout(davis_as_youtube_vos):
    root, truth = davis_as_youtube_vos
    (video,) = READ(root, None)
    assert (len(video.frames), video.results, list(video.masks)) == (16, [0, 5, 10, 15], [0, 5])
    protocol, encoder = Protocol(context=6), PixelExtractor()
    answers = list(propagate(video, encoder, protocol))
    assert [answer.index for answer in answers] == list(range(16))
    written = {answer.index: answer.labels for answer in answers if answer.labels is not None}
    assert list(written) == [0, 5, 10, 15]
    assert [int((labels == 2).sum()) > 0 for labels in written.values()] == [False, True, True, True]
    for index, labels in written.items():
        assert labels.shape == truth[index].shape
        assert set(np.unique(labels)) <= {0, 1, 2}
    for index, number in ((0, 1), (5, 1), (5, 2)):  # pixels alone lose a swan soon after
        found, real = written[index] == number, truth[index] == number
        assert (found & real).sum() / (found | real).sum() > 0.3, (index, number)

    fifth = Sequence(
        video.name,
        [video.frames[index] for index in video.results],
        {0: video.masks[0], 1: video.masks[5]},
        [None] * 4,
        single_object=False,
    )
    jumps = [answer.labels for answer in propagate(fifth, encoder, protocol)]
    assert any((jumps[place] != written[index]).any() for place, index in enumerate(written))


def test_an_object_is_labelled_from_its_first_frame_on(tmp_path):
    (video,) = READ(youtube_vos(tmp_path), None)
    given = [answer.labels for answer in copy_first(video) if answer.labels is not None]
    shown = [np.unique(labels).tolist() for labels in given]
    assert shown == [[0, 3], [0, 3, 200], [0, 3, 200]]
    never = [
        np.unique(answer.labels).tolist()
        for answer in copy_first(video, Protocol(late_objects="never"))
        if answer.labels is not None
    ]
    assert never == [[0, 3]] * 3


def test_masks_that_show_known_objects_again_change_nothing(tmp_path):
    """The masks of later frames are not ground truth to look at: known objects in them are ignored."""
    root = youtube_vos(tmp_path)
    (video,) = READ(root, None)
    once = [answer.labels for answer in propagate(video, PixelExtractor(), Protocol())]
    mask = np.array(Image.open(video.masks[5]))
    mask[:4, :4] = 3
    write_mask(video.masks[5], mask)
    again = [answer.labels for answer in propagate(READ(root, None)[0], PixelExtractor(), Protocol())]
    for before, after in zip(once, again, strict=True):
        np.testing.assert_array_equal(before, after)
