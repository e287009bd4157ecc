"""Pictures of an evaluation: what they show, that they fit, and that they can be opened."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from evaluation_video import Video, make_video
from PIL import Image
from scipy.io import savemat

from hvc.base.errors import HvcError
from hvc.evaluation.drawing.overlay_video import write_video
from hvc.evaluation.drawing.overlays import JOINTS, LIMBS, overlay, part_palette, skeleton
from hvc.evaluation.drawing.pictures import draw, draw_features, draw_overview
from hvc.evaluation.drawing.scenes import Scene
from hvc.evaluation.drawing.strips import WIDTH, legend_of, spread, strip
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.layouts.vip import CLASSES
from hvc.evaluation.metrics.measures import label, main_curve, scored_frames


@dataclass
class Scores:
    """Of an evaluation."""

    per_sequence: dict = field(default_factory=dict)
    per_object: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)


def written(video, folder, name="clip", **more):
    """A sequence on disk, its truth the video's labels, and its results the same, moved a little."""
    root = video.write(folder / name)
    frames = sorted((root / "frames").iterdir())
    for frame, labels in zip(frames, video.labels, strict=True):
        write_mask(folder / "labels" / name / f"{frame.stem}.png", np.roll(labels, 4, axis=1))
    masks = sorted((root / "masks").iterdir())
    return Sequence(name, frames, {0: masks[0]}, list(masks), False, **more), folder / "labels"


def scores_of(*names, frames=6, measure=60.0):
    return Scores(
        {name: {"jf_mean": measure + 10 * place, "j_mean": 50.0} for place, name in enumerate(names)},
        {f"{name}/{number}": {"j_mean": 50.0, "f_mean": 70.0} for name in names for number in (3, 200)},
        {name: {"j": [60.0] * (frames - 2), "f": [40.0] * (frames - 2)} for name in names},
    )


def test_only_objects_are_coloured(video):
    image, labels = video.frames[0], video.labels[0]
    drawn = np.asarray(overlay(image, labels))
    np.testing.assert_array_equal(drawn[labels == 0], image[labels == 0])
    assert (drawn[labels == 1] != image[labels == 1]).any(axis=1).all()


def test_alpha_zero_leaves_the_picture_inside_and_the_contour_is_white(video):
    image, labels = video.frames[0], video.labels[0]
    drawn = np.asarray(overlay(image, labels, alpha=0))
    np.testing.assert_array_equal(drawn[8:32, 12:36], image[8:32, 12:36])
    rim = drawn[6, 10:38]
    assert (rim == 255).all()


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("width", [40, 320])
def test_a_strip_has_a_row_more_for_the_truth_and_a_line_more_for_scores(count, width):
    pictures = [Image.new("RGB", (width, width // 2))] * count
    titles, none, some = ["00001"] * count, [""] * count, ["J&F 61.2"] * count
    one = strip({"propagated": pictures}, titles, none, "a")
    two = strip({"propagated": pictures, "ground truth": pictures}, titles, none, "a")
    scored = strip({"propagated": pictures}, titles, some, "a")
    assert two.width == one.width >= count * width
    assert two.height > one.height + width // 2
    assert one.height < scored.height < two.height


def test_a_sequence_is_drawn_in_three_pictures(two_objects, tmp_path):
    sequence, labels = written(two_objects, tmp_path)
    files = draw(sequence, labels, scores_of("clip"), tmp_path / "pictures")
    assert [path.name for path in files] == ["clip.png", "clip.gif", "clip-scores.png"]
    with Image.open(files[0]) as shown:
        assert shown.width <= WIDTH
    with Image.open(files[1]) as moving:
        assert (moving.n_frames, moving.is_animated) == (6, True)


def test_what_was_propagated_is_shown_and_not_the_truth(video, tmp_path):
    sequence, labels = written(video, tmp_path)
    scene = Scene(sequence, labels)
    size = scene.scaled(96)
    left, right = np.asarray(scene.propagated(0, size)), np.asarray(scene.truth(0, size))
    plain = scene.plain(0, size).astype(int)
    assert (abs(left - plain).max(2)[20, 10:14] < 3).all()  # results lie four pixels to the right
    assert (abs(right - plain).max(2)[20, 11:14] > 3).all()


def test_without_truth_or_scores_there_is_a_strip_and_a_moving_picture(video, tmp_path):
    sequence, labels = written(video, tmp_path)
    bare = Sequence("clip", sequence.frames, sequence.masks, [None] * 6, False)
    files = draw(bare, labels, None, tmp_path / "pictures")
    assert [path.name for path in files] == ["clip.png", "clip.gif"]


def test_only_frames_that_have_results_are_shown(video, tmp_path):
    sequence, labels = written(video, tmp_path, written=frozenset({0, 3, 5}))
    for stem in ("00001", "00002", "00004"):
        (labels / "clip" / f"{stem}.png").unlink()
    draw(sequence, labels, None, tmp_path / "pictures")
    with Image.open(tmp_path / "pictures" / "clip.gif") as moving:
        assert moving.n_frames == 3


def test_a_missing_result_is_named(video, tmp_path):
    sequence, labels = written(video, tmp_path)
    (labels / "clip" / "00005.png").unlink()
    with pytest.raises(HvcError, match=r"00005\.png"):
        draw(sequence, labels, None, tmp_path / "pictures")


def test_a_damaged_frame_is_named(video, tmp_path):
    sequence, labels = written(video, tmp_path)
    path = sequence.frames[3]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(HvcError, match=rf"{path.name}: not a readable picture"):
        draw(sequence, labels, None, tmp_path / "pictures")


@pytest.mark.parametrize("most", [40_000, 250_000])
def test_a_moving_picture_keeps_to_its_size(most, tmp_path):
    large = np.random.default_rng(0).integers(0, 255, (24, 270, 480, 3), np.uint8)
    noise = Video(large, np.zeros((24, 270, 480), np.uint8))
    sequence, labels = written(noise, tmp_path)
    write_video(Scene(sequence, labels), {}, "", tmp_path / "a.gif", most)
    with Image.open(tmp_path / "a.gif") as moving:
        assert moving.n_frames == 24
        assert (tmp_path / "a.gif").stat().st_size <= most or moving.width == 160


def test_the_worst_sequence_comes_first(video, tmp_path):
    good, labels = written(video, tmp_path, "good")
    dark = type(video)(np.zeros_like(video.frames), np.zeros_like(video.labels))
    bad, _ = written(dark, tmp_path, "bad")
    scores = scores_of("bad", "good")
    (file,) = draw_overview([good, bad], labels, scores, "jf_mean", tmp_path / "p", "title")
    with Image.open(file) as sheet:
        cell = np.asarray(sheet.convert("L"))[100:140]
    assert cell[:, 20:90].mean() < 5 < cell[:, 340:400].mean()


def test_nothing_scored_makes_no_overview(video, tmp_path):
    sequence, labels = written(video, tmp_path)
    assert draw_overview([sequence], labels, Scores(), "jf_mean", tmp_path / "p", "title") == []


def test_features_that_agree_have_one_colour_in_both_frames(video, tmp_path):
    sequence, _ = written(video, tmp_path)

    def halves(image):
        maps = torch.zeros(4, 6, 8)
        maps[0, :, :4], maps[1, :, 4:] = 1, 1
        return maps

    (file,) = draw_features([sequence], halves, tmp_path / "p")
    with Image.open(file) as sheet:
        row = np.asarray(sheet)[120]
    first, last = row[420:820:20], row[1240:1640:20]
    np.testing.assert_array_equal(first, last)
    assert len(np.unique(first, axis=0)) == 2


def joints_on_disk(video, folder, joints):
    sequence, labels = written(video, folder)
    positions = np.full((2, len(JOINTS), 6), 30.0)
    savemat(folder / "joint_positions.mat", {"pos_img": positions})
    content = {
        "joints": [joints] * 6,
        "frames": [path.stem for path in sequence.frames],
        "width": 96,
        "height": 72,
    }
    (labels / "clip.json").write_text(json.dumps(content))
    pose = Sequence("clip", sequence.frames, {}, [None] * 6, False, joints=folder / "joint_positions.mat")
    return Scene(pose, labels)


def test_joints_are_drawn_where_they_are_and_lost_ones_are_not(video, tmp_path):
    lost = joints_on_disk(video, tmp_path, [None] * len(JOINTS))
    np.testing.assert_array_equal(lost.propagated(0, (96, 72)), lost.plain(0, (96, 72)))
    shown = np.asarray(lost.truth(0, (96, 72))).astype(int)
    changed = np.argwhere(abs(shown - lost.plain(0, (96, 72))).max(2) > 3)
    assert abs(changed.mean(0) - 29).max() < 0.5  # the file counts from 1
    assert abs(changed - 29).max() <= 4


def test_every_joint_has_a_limb_and_sides_have_colours_of_their_own():
    assert {end for limb in LIMBS for end in limb[:2]} == set(range(len(JOINTS)))
    for first, second, colour in LIMBS:
        side = {
            word for end in (first, second) for word in JOINTS[end].split() if word in ("left", "right")
        }
        assert len(side) <= 1
        assert all(
            (word in JOINTS[first] + JOINTS[second]) == (c == colour) for word in side for c in [colour]
        )
    image = np.zeros((60, 60, 3), np.uint8)
    points = [None] * len(JOINTS)
    points[3], points[7] = (5.0, 30.0), (55.0, 30.0)
    middle = np.asarray(skeleton(image, points, alpha=1))[30, 30]
    assert tuple(middle) == next(colour for first, second, colour in LIMBS if (first, second) == (3, 7))


def test_parts_have_the_colours_of_the_legend(video, tmp_path):
    sequence, labels = written(make_video(ids=(4, 13)), tmp_path, classes=len(CLASSES))
    scene = Scene(sequence, labels)
    assert scene.parts() == [4, 13]
    assert len(np.unique(part_palette()[: len(CLASSES)], axis=0)) == len(CLASSES)
    narrow, wide = legend_of([4, 13], 150), legend_of([4, 13], 900)
    assert narrow.height > wide.height
    found = {tuple(colour) for colour in np.asarray(wide).reshape(-1, 3)}
    assert {tuple(part_palette()[number]) for number in (4, 13)} <= found


def test_frames_shown_are_the_first_the_last_and_some_between():
    assert spread(1, 6) == [0]
    assert spread(3, 6) == [0, 1, 2]
    assert spread(101, 5) == [0, 25, 50, 75, 100]


def test_a_curve_belongs_to_the_frames_that_are_scored():
    assert list(scored_frames(4, range(6))) == [1, 2, 3, 4]
    assert list(scored_frames(5, range(6))) == [1, 2, 3, 4, 5]
    assert list(scored_frames(6, range(6))) == [0, 1, 2, 3, 4, 5]
    assert list(scored_frames(2, [0, 5, 10, 15])) == [5, 10]


def test_measures_have_the_names_of_papers():
    assert [label(name) for name in ("jf_mean", "j", "pck_0.2", "miou", "other")] == [
        "J&F",
        "J",
        "PCK@0.2",
        "mIoU",
        "other",
    ]
    assert main_curve({"j": [10.0, 30.0], "f": [20.0, 50.0]}) == ("J&F", [15.0, 40.0])
    assert main_curve({"miou": [1.0]}) == ("mIoU", [1.0])
    assert main_curve({}) is None
