"""Scores of joints: which count, and what their distances are compared with."""

import json

import numpy as np
import pytest
from scipy.io import savemat

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.joint_files import JOINTS, TrackedJoints, write_tracked
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.pose import PoseScorer
from hvc.evaluation.metrics.scoring import scorer_of
from hvc.evaluation.propagation.protocol import Protocol

FRAMES = 4


@pytest.fixture
def truth():
    """[T, J, 2]: joints on the diagonal of a box of 60 x 80 pixels; the body's size is 60."""
    return np.tile(np.linspace([100, 100], [160, 180], JOINTS), (FRAMES, 1, 1))


def clip(folder, truth, tracked):
    path = folder / "joint_positions.mat"
    savemat(path, {"pos_img": truth.transpose(2, 1, 0) + 1})
    frames = [folder / f"{number:05d}.png" for number in range(1, len(truth) + 1)]
    stems = [f"{number:05d}" for number in range(1, len(tracked) + 1)]
    write_tracked(folder / "labels" / "catch" / "c1.json", TrackedJoints(stems, 320, 240, tracked))
    return Sequence("catch/c1", frames, {}, [None] * len(frames), single_object=False, joints=path)


def scores_of(scorer, sequence):
    record = json.loads(json.dumps(scorer.score(sequence, sequence.joints.parent / "labels")))
    return scorer.summarise({sequence.name: record})


def test_distances_are_shares_of_the_body(tmp_path, truth):
    tracked = truth.copy()
    tracked[:, 3] += [6, 0]  # 0.1 of 60: found at the threshold itself
    tracked[:, 4] += [6.1, 0]
    tracked[:, 5] += [0, 29]
    tracked[:, 6] += [0, 61]
    summary = scores_of(PoseScorer(), clip(tmp_path, truth, tracked))
    assert [round(summary.scores[f"pck_0.{n}"] * JOINTS / 100) for n in range(1, 6)] == [12, 13, 13, 13, 14]
    assert summary.curves["catch/c1"]["pck_0.1"] == pytest.approx([80] * 3)
    assert summary.per_sequence["catch/c1"] == summary.scores


def test_the_first_frame_counts_where_the_protocol_says_so(tmp_path, truth):
    tracked = truth + np.array([100, 0])
    tracked[0] = truth[0]
    sequence = clip(tmp_path, truth, tracked)
    assert scores_of(PoseScorer(), sequence).scores["pck_0.5"] == 0
    with_first = scorer_of("jhmdb", Protocol(joint_first_frame=True))
    assert scores_of(with_first, sequence).scores["pck_0.5"] == pytest.approx(25)
    assert with_first.settings["first_frame"] is True


def test_lost_joints_are_left_out_of_score_and_box_or_are_misses(tmp_path, truth):
    tracked = truth + np.array([5, 0])  # 0.083 of the whole body
    tracked[:, -1] = np.nan  # at the end of the diagonal: the box of the others is smaller
    sequence = clip(tmp_path, truth, tracked)
    excluded, wrong = (PoseScorer(lost_joints=rule) for rule in ("excluded", "wrong"))
    results = tmp_path / "labels"
    assert excluded.measure(sequence, results, [1])[0, 0] == pytest.approx(5 / (60 * 13 / 14))
    assert wrong.measure(sequence, results, [1])[0, 0] == pytest.approx(5 / 60)
    assert scores_of(excluded, sequence).scores["pck_0.1"] == 100
    assert scores_of(wrong, sequence).scores["pck_0.1"] == pytest.approx(100 * 14 / 15)


def test_all_joints_lost_is_nothing_found(tmp_path, truth):
    sequence = clip(tmp_path, truth, np.full_like(truth, np.nan))
    assert scores_of(PoseScorer(), sequence).scores["pck_0.5"] == 0


def test_joints_in_another_order_are_not_taken_for_those_of_the_frames(tmp_path, truth):
    sequence = clip(tmp_path, truth, truth)
    stems = [frame.stem for frame in sequence.frames]
    backwards = TrackedJoints(stems[::-1], 320, 240, truth[::-1])
    write_tracked(tmp_path / "labels" / "catch" / "c1.json", backwards)
    message = r"c1.json: expected joints of the frames 00001, .*in this order, not 00004, 00003"
    with pytest.raises(HvcError, match=message):
        PoseScorer().score(sequence, tmp_path / "labels")


def test_another_number_of_frames_is_named(tmp_path, truth):
    sequence = clip(tmp_path, truth, truth[:-1])
    with pytest.raises(HvcError, match=r"c1.json has joints of 3 frames, but .*joint_positions.mat has 4"):
        PoseScorer().score(sequence, tmp_path / "labels")
    (tmp_path / "labels" / "catch" / "c1.json").unlink()
    with pytest.raises(HvcError, match=r"1 of 1 files of results are missing: .*c1.json"):
        PoseScorer().score(sequence, tmp_path / "labels")
