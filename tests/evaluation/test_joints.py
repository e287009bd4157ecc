"""Joints as heat maps: drawn, carried through a clip, read back, written."""

import numpy as np
import pytest
import torch
from evaluation_layouts import jhmdb, joint_positions

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.jhmdb import read_jhmdb
from hvc.evaluation.layouts.joint_files import read_joint_positions, read_tracked
from hvc.evaluation.propagation.features import PixelExtractor
from hvc.evaluation.propagation.joints import heat_maps, read_back, track_joints, write_joints
from hvc.evaluation.propagation.presets import PRESETS
from hvc.evaluation.propagation.video import copy_first

PROTOCOL = PRESETS["crw-jhmdb"]


@pytest.fixture
def clip(tmp_path):
    return read_jhmdb(jhmdb(tmp_path, {"a": "catch", "b": "catch"}))[0]


@pytest.mark.shared
@pytest.mark.parametrize("video", [0, 1, 2])
def test_heat_maps_are_the_official_ones(golden, video):
    """In video 1 joints lie at (1, 1), at the border and outside the image."""
    data = golden.load("jhmdb.npz")
    height, width = data[f"v{video}_HW"]
    joints = data[f"v{video}_joints0"].transpose(2, 1, 0)
    for place, name in ((0, "first"), (-1, "last")):
        cells = joints[place] * 320.0 / (float(width), float(height)) / 8
        maps = heat_maps(cells, (40, 40))
        expected = data[f"v{video}_heat_{name}"].transpose(2, 0, 1)
        np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-10)


@pytest.mark.shared
@pytest.mark.parametrize("video", [0, 1, 2])
def test_joints_are_read_back_as_officially(golden, video):
    data = golden.load("jhmdb.npz")
    for place, maps in enumerate(data[f"v{video}_predmaps"]):
        found = read_back(torch.from_numpy(maps), 3)
        expected = data[f"v{video}_coords"][:, :, place].T
        np.testing.assert_allclose(np.nan_to_num(found, nan=-1), expected, rtol=0, atol=1e-10)


def test_more_peaks_are_another_mean():
    maps = torch.zeros(4, 6, 2)
    maps[1, :5, 1] = torch.tensor([1.0, 2.0, 4.0, 2.0, 1.0])
    maps[3, 5, 1] = 0.5
    np.testing.assert_allclose(read_back(maps, 3), [[2, 1]])
    np.testing.assert_allclose(read_back(maps, 5), [[2, 1]])
    np.testing.assert_allclose(read_back(maps, 6), [[(20 + 2.5) / 10.5, (10 + 1.5) / 10.5]])
    assert np.isnan(read_back(torch.zeros(4, 6, 2), 3)).all()
    np.testing.assert_allclose(read_back(maps[1:2, :2], 5), [[2 / 3, 0]])  # fewer cells than peaks


def test_the_background_is_where_no_joint_is():
    maps = heat_maps(np.array([[5.0, 4.0], [100.0, 4.0]]), (8, 10))
    assert maps.shape == (3, 8, 10)
    assert (maps[0] == (maps[1] == 0)).all()
    assert maps[1].argmax() == 4 * 10 + 5
    assert not maps[2].any()


def test_a_clip_is_followed(clip):
    """The square and the joints on it move 3 pixels a frame; a cell is 2.4 x 1.8 pixels."""
    truth = read_joint_positions(clip.joints)
    frames = list(track_joints(clip, PixelExtractor(), PROTOCOL))
    assert [frame.index for frame in frames] == list(range(5))
    found = np.stack([frame.joints for frame in frames])
    assert found.shape == truth.shape
    assert np.nanmedian(np.linalg.norm(found[0] - truth[0], axis=1)) < 2.5
    still = np.linalg.norm(truth[0] - truth[-1], axis=1).mean()
    assert still == pytest.approx(12)
    assert np.nanmedian(np.linalg.norm(found[-1] - truth[-1], axis=1)) < 0.5 * still


def test_joints_travel_alike_at_the_clips_own_size(clip):
    """Cells of 8 pixels: a joint comes back within a cell or so."""
    truth = read_joint_positions(clip.joints)[0]
    first = next(track_joints(clip, PixelExtractor(), PROTOCOL.model_copy(update={"input_size": None})))
    assert np.abs(first.joints - truth).max() < 12


def test_a_joint_outside_the_image_is_lost(clip, tmp_path):
    from scipy.io import savemat

    points = joint_positions(5)
    points[:, 4] = 5000
    savemat(clip.joints, {"pos_img": points.transpose(2, 1, 0) + 1})
    frames = list(track_joints(clip, PixelExtractor(), PROTOCOL))
    for frame in frames:
        assert np.flatnonzero(np.isnan(frame.joints).any(1)).tolist() == [4]
    write_joints(tmp_path / "a.json", clip, frames)
    tracked = read_tracked(tmp_path / "a.json")
    assert tracked.frames == [f"{index:05d}" for index in range(1, 6)]
    assert (tracked.width, tracked.height) == (96, 72)
    np.testing.assert_array_equal(tracked.joints, np.stack([frame.joints for frame in frames]))
    assert '"joints": [[[' in (tmp_path / "a.json").read_text()
    assert "null" in (tmp_path / "a.json").read_text()


def test_stop_is_heard(clip):
    seen = []
    for frame in track_joints(clip, PixelExtractor(), PROTOCOL, stop=lambda: len(seen) == 2):
        seen.append(frame.index)
    assert seen == [0, 1]


def test_the_first_frames_joints_stay_as_a_baseline(clip):
    frames = list(copy_first(clip))
    truth = read_joint_positions(clip.joints)[0]
    assert len(frames) == 5
    for frame in frames:
        np.testing.assert_array_equal(frame.joints, truth)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"joints": [[[1, 2]]], "frames": ["a"], "width": 3, "height": 4}']
)
def test_files_that_hold_no_joints_are_named(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(HvcError, match=r"a.json"):
        read_tracked(path)


@pytest.mark.shared
def test_a_real_clip_is_followed_better_than_by_standing_still(shared):
    """Forty frames of 320 x 240; distances in pixels, over all joints and the last ten frames."""
    name = "Goal_Keeping_Tips_catch_f_cm_np1_fr_med_2"
    (sequence,) = read_jhmdb(shared / "data" / "jhmdb", [name])
    truth = read_joint_positions(sequence.joints)
    protocol = PROTOCOL.model_copy(update={"context": 3})
    found = np.stack([frame.joints for frame in track_joints(sequence, PixelExtractor(), protocol)])
    assert found.shape == truth.shape
    error = np.nanmean(np.linalg.norm(found - truth, axis=2)[-10:])
    still = np.linalg.norm(truth[:1] - truth, axis=2)[-10:].mean()
    assert error < still
