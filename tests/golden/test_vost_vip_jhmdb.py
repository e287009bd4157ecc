"""Measures of VOST, VIP and JHMDB against the official tools'."""

import json

import numpy as np
import pytest
from scipy.io import savemat

from hvc.evaluation.layouts.joint_files import TrackedJoints, write_tracked
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.pose import THRESHOLDS, PoseScorer, correct_keypoints
from hvc.evaluation.metrics.vip import CLASSES, VipScorer
from hvc.evaluation.metrics.vost import VostScorer

pytestmark = pytest.mark.shared

GRID = 40


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


def masks(folder, name, truth, predicted):
    for number, pair in enumerate(zip(truth, predicted, strict=True)):
        for kind, labels in zip(("gt", "pred"), pair, strict=True):
            write_mask(folder / kind / name / f"{number:05d}.png", labels)
    files = sorted((folder / "gt" / name).glob("*.png"))
    return Sequence(name, files, {0: files[0]}, list(files), single_object=False)


def summarised(scorer, sequences, results):
    records = {sequence.name: scorer.score(sequence, results) for sequence in sequences}
    return scorer.summarise(json.loads(json.dumps(records)))


def test_vost(golden, tmp_path):
    data, videos = golden.load("vost_metrics.npz"), golden.load("davis_metrics.npz")
    sequences = [
        masks(tmp_path, name, videos[f"{name}_gt"], videos[f"{name}_pred"])
        for name in videos["seqs"].tolist()
    ]
    summary = summarised(VostScorer(), sequences, tmp_path / "pred")
    names = ("j_mean", "j_recall", "j_decay", "j_last", "j_last_recall", "j_last_decay")
    close([summary.scores[name] / 100 for name in names], data["global"])
    assert list(summary.per_object) == [name.replace("_", "/") for name in data["names"].tolist()]
    columns = ("J_M", "J_R", "J_D", "J_last_M", "J_last_R", "J_last_D")
    for name, column in zip(names, columns, strict=True):
        close([values[name] / 100 for values in summary.per_object.values()], data[column])


def test_vip(golden, tmp_path):
    data = golden.load("vip_metrics.npz")
    assert (data["gt"] == 255).any()
    halves = [slice(0, 2), slice(2, 5)]
    sequences = [
        masks(tmp_path, f"videos{n}", data["gt"][part], data["pred"][part]) for n, part in enumerate(halves)
    ]
    scorer = VipScorer()
    parts = [scorer.score(sequence, tmp_path / "pred")["confusion"] for sequence in sequences]
    np.testing.assert_array_equal(np.sum(parts, axis=0), data["hist"])
    scores = summarised(scorer, sequences, tmp_path / "pred").scores
    close(scores["miou"] / 100, data["miou"])
    close([scores["accuracy"] / 100, scores["mean_accuracy"] / 100], [data["acc"], data["macc"]])
    close([scores[f"iou_{name}"] / 100 for name in CLASSES], data["iou"])


def clips(data, folder):
    """The golden joints as the data set's .mat files, the golden answers as tracking writes them."""
    found = []
    for name in ("v0", "v1", "v2"):
        truth, cells = data[f"{name}_joints0"], data[f"{name}_coords"].transpose(2, 1, 0)
        height, width = data[f"{name}_HW"].tolist()
        path = folder / "joint_positions" / name / "joint_positions.mat"
        path.parent.mkdir(parents=True)
        savemat(path, {"pos_img": truth + 1})
        frames = [folder / f"{number:05d}.png" for number in range(truth.shape[2])]
        joints = np.where(cells[..., :1] < 0, np.nan, cells / GRID * [width, height])
        stems = [frame.stem for frame in frames]
        write_tracked(folder / "labels" / f"{name}.json", TrackedJoints(stems, width, height, joints))
        found.append(Sequence(name, frames, {}, [None] * len(frames), single_object=False, joints=path))
    return found


def test_jhmdb(golden, tmp_path):
    data = golden.load("jhmdb.npz")
    sequences = clips(data, tmp_path)
    assert any((data[f"{name}_coords"] < 0).any() for name in ("v0", "v1", "v2"))  # some joints are lost
    scorer = PoseScorer()
    scores = summarised(scorer, sequences, tmp_path / "labels").scores
    distances = np.concatenate(
        [scorer.measure(one, tmp_path / "labels", scorer.frames(one)) for one in sequences]
    )
    for threshold in THRESHOLDS:
        expected = data[f"pck{threshold}"]
        close(correct_keypoints(distances, threshold), expected[:-1])
        close(scores[f"pck_{threshold}"], expected[-1])
