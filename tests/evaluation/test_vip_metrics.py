"""Scores of body parts: which pixels and classes count."""

import numpy as np
import pytest
from scored_files import save, scene

from hvc.base.errors import HvcError
from hvc.evaluation.metrics.vip import VipScorer, confusion


def parts(frames=3):
    """Background, torso (12) and a leg (16), [T, 20, 30]."""
    labels = np.zeros((frames, 20, 30), np.uint8)
    labels[:, 2:10, 5:20], labels[:, 10:18, 5:10] = 12, 16
    return labels


def scores_of(*scenes):
    scorer = VipScorer()
    return scorer.summarise(
        {sequence.name: scorer.score(sequence, results) for sequence, results in scenes}
    )


def test_the_first_frame_counts_and_classes_that_nobody_shows_do_not(tmp_path):
    labels = parts()
    labels[0][labels[0] == 16] = 17
    summary = scores_of(scene(tmp_path, parts(), labels))
    named = {name for name in summary.scores if name.startswith("iou_")}
    assert named == {"iou_background", "iou_torso-skin", "iou_right-leg", "iou_left-leg"}
    assert summary.scores["iou_left-leg"] == 0
    assert summary.scores["iou_right-leg"] == pytest.approx(100 * 2 / 3)
    assert summary.scores["miou"] == pytest.approx((1 + 1 + 2 / 3 + 0) / 4 * 100)
    assert summary.curves["clip"]["miou"] == [50, 100, 100]


def test_all_videos_share_one_matrix(tmp_path):
    good = scene(tmp_path, parts(3), parts(3), "good")
    bad = scene(tmp_path, parts(1), np.zeros_like(parts(1)), "bad")
    summary = scores_of(good, bad)
    assert summary.scores["iou_torso-skin"] == 75
    assert summary.per_sequence["good"]["miou"] == 100
    assert summary.per_sequence["bad"]["miou"] < 30


def test_true_ids_above_19_are_void():
    truth = np.array([[255, 20, 3]], np.uint8)
    matrix = confusion(truth, np.array([[1, 2, 4]], np.uint8))
    assert matrix.sum() == matrix[3, 4] == 1


def test_results_of_another_size_are_resized_by_nearest_neighbour(tmp_path):
    sequence, results = scene(tmp_path, parts(), parts())
    save(results, "clip", parts().repeat(2, axis=1).repeat(3, axis=2))
    assert scores_of((sequence, results)).scores["miou"] == 100


def test_what_cannot_be_scored_is_named(tmp_path):
    sequence, results = scene(tmp_path, parts(), parts() + 8)
    with pytest.raises(
        HvcError, match=r"results/clip/00000.png shows id 24, but VIP's classes are 0 to 19"
    ):
        VipScorer().score(sequence, results)
    (results / "clip" / "00002.png").unlink()
    with pytest.raises(HvcError, match=r"1 of 3 files of results are missing: .*00002.png"):
        VipScorer().score(sequence, results)
