"""JHMDB as downloaded: clips by class of action, joints in MATLAB files, three splits."""

import shutil

import numpy as np
import pytest
from evaluation_layouts import jhmdb, joint_positions, put_list
from scipy.io import savemat

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.checks import check_sequences
from hvc.evaluation.layouts.jhmdb import jhmdb_names, read_jhmdb
from hvc.evaluation.layouts.joint_files import read_joint_positions
from hvc.evaluation.reports.naming import subset_suffix

CLIPS = {"a_catch_1": "catch", "b_catch_2": "catch", "c_wave_1": "wave", "d_wave_2": "wave"}


def test_the_test_clips_of_split_1(tmp_path):
    root = jhmdb(tmp_path, CLIPS)
    sequences = read_jhmdb(root)
    assert [sequence.name for sequence in sequences] == ["a_catch_1", "c_wave_1"] == jhmdb_names(root)
    first = sequences[0]
    assert [path.name for path in first.frames] == [f"{index:05d}.png" for index in range(1, 6)]
    assert first.masks == {}
    assert first.annotated
    np.testing.assert_allclose(read_joint_positions(first.joints), joint_positions(5), rtol=0, atol=1e-12)
    check_sequences(sequences)


def test_frames_after_the_last_joints_are_left_out(tmp_path):
    root = jhmdb(tmp_path, CLIPS)
    path = root / "joint_positions" / "catch" / "a_catch_1" / "joint_positions.mat"
    savemat(path, {"pos_img": joint_positions(3).transpose(2, 1, 0)})
    assert len(read_jhmdb(root, ["a_catch_1"])[0].frames) == 3
    savemat(path, {"pos_img": joint_positions(6).transpose(2, 1, 0)})
    with pytest.raises(HvcError, match=r"has joints of 6 frames, but there are 5 in .*catch/a_catch_1"):
        read_jhmdb(root)


def test_without_splits_clips_have_to_be_named(tmp_path):
    root = jhmdb(tmp_path, CLIPS, split=False)
    with pytest.raises(HvcError, match=r"expected .*splits/CLASS_test_split1.txt: .*training clips"):
        read_jhmdb(root)
    assert [sequence.name for sequence in read_jhmdb(root, ["d_wave_2"])] == ["d_wave_2"]
    # even all of them are not known to be the benchmark: their score gets the name of a subset
    assert subset_suffix(CLIPS, jhmdb_names(root)).startswith("-subset-")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"expected the joints of a clip at .*a_catch_1/joint_positions.mat"),
        (b"no MATLAB at all" * 20, r"joint_positions.mat: not a readable MATLAB file"),
        (
            {"pos_img": np.zeros((2, 14, 5))},
            r"expected pos_img of 2 x 15 x T numbers, there is .*\(2, 14, 5\)",
        ),
        ({"pos_world": np.zeros((2, 15, 5))}, r"expected pos_img of 2 x 15 x T numbers"),
    ],
)
def test_spoilt_joints_are_named(tmp_path, content, message):
    path = jhmdb(tmp_path, CLIPS) / "joint_positions" / "catch" / "a_catch_1" / "joint_positions.mat"
    path.unlink()
    if isinstance(content, dict):
        savemat(path, content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(HvcError, match=message):
        read_jhmdb(tmp_path)


def test_a_truncated_file_is_found_by_the_checks(tmp_path):
    sequences = read_jhmdb(jhmdb(tmp_path, CLIPS))
    path = sequences[0].joints
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(HvcError, match=r"^sequence a_catch_1: .*not a readable MATLAB file"):
        check_sequences(sequences)


def test_what_is_missing_is_named(tmp_path):
    root = jhmdb(tmp_path / "JHMDB", CLIPS)
    with pytest.raises(HvcError, match=r"one folder too high, take .*/JHMDB$"):
        read_jhmdb(tmp_path)
    with pytest.raises(HvcError, match=r"one folder too low, take .*/JHMDB$"):
        read_jhmdb(root / "Rename_Images")
    put_list(root / "splits" / "wave_test_split1.txt", "c_wave_1.avi 2", "e_wave_3.avi 2")
    assert [sequence.name for sequence in read_jhmdb(root)] == ["a_catch_1", "c_wave_1"]
    with pytest.raises(HvcError, match="has no sequence e_wave_3; it has: a_catch_1, "):
        read_jhmdb(root, ["e_wave_3"])
    shutil.rmtree(root / "joint_positions")
    with pytest.raises(HvcError, match=r"not a JHMDB folder: expected .*joint_positions"):
        read_jhmdb(root)


@pytest.mark.shared
def test_a_real_clip(shared):
    name = "Goal_Keeping_Tips_catch_f_cm_np1_fr_med_2"
    (sequence,) = read_jhmdb(shared / "data" / "jhmdb", [name])
    assert len(sequence.frames) == 40
    points = read_joint_positions(sequence.joints)
    assert points.shape == (40, 15, 2)
    assert 0 < points.min() < points.max() < 320
    check_sequences([sequence])
