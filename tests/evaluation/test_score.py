"""`hvc score`: any method's folder against each benchmark's data, whole or not at all."""

import csv
import json
import math
import shutil

import evaluation_layouts as layouts
import numpy as np
import pytest
from evaluation_video import make_video
from running import hvc_json, run_hvc
from scored_files import objects_in, scene

from hvc.base.errors import HvcError, UsageError
from hvc.evaluation.layouts.joint_files import TrackedJoints, write_tracked
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.metrics import score_frames
from hvc.evaluation.metrics.davis import MaskScorer
from hvc.evaluation.metrics.score_frames import plan_chunks, score_sequences
from hvc.evaluation.metrics.scorer import Summary
from hvc.evaluation.score import Report, score


def perfect_joints(root, results):
    data = layouts.jhmdb(root, {"c1": "catch", "c2": "catch"})
    stems = [f"{number:05d}" for number in range(1, 6)]
    for name in ("catch/c1", "c1"):  # whatever the reader calls the clip
        write_tracked(results / f"{name}.json", TrackedJoints(stems, 96, 72, layouts.joint_positions(5)))
    return data


DATA = {
    "davis2016": (lambda root: layouts.davis2016(root, "libby", "bear"), "Annotations/480p"),
    "davis2017": (lambda root: layouts.davis2017(root, "libby", "dogs-jump"), "Annotations/480p"),
    "vost": (lambda root: layouts.vost(root, "001_cut", "002_peel"), "Annotations"),
    "vip": (lambda root: layouts.vip(root, "videos1", "videos2"), "Annotations/Category_ids"),
}
HEADLINES = {"davis2016": "jf_mean", "davis2017": "jf_mean", "vost": "j_mean", "vip": "miou"}


@pytest.mark.parametrize("benchmark", DATA)
def test_the_annotations_themselves_score_100(tmp_path, benchmark):
    make, annotations = DATA[benchmark]
    data = make(tmp_path / "data")
    report = score(benchmark, data / annotations, data)
    assert report.headline == HEADLINES[benchmark]
    assert report.summary.scores[report.headline] == 100
    assert all(values[report.headline] == 100 for values in report.summary.per_sequence.values())


def test_merged_davis_2016_ignores_ids(tmp_path):
    data = layouts.davis2017(tmp_path / "data", "libby", "blackswan")
    for path in (data / "Annotations" / "480p").rglob("*.png"):
        labels = make_video(4, ids=(1, 2)).labels[int(path.stem)]
        write_mask(tmp_path / "results" / path.parent.name / path.name, (labels > 0).astype(np.uint8))
    report = score("davis2016-merged", tmp_path / "results", data)
    assert report.summary.scores["jf_mean"] == 100
    assert set(report.summary.per_object) == {"libby/1", "blackswan/1"}
    separate = score("davis2017", tmp_path / "results", data, ["libby", "blackswan"])
    assert separate.summary.scores["jf_mean"] < 75


def test_joints(tmp_path):
    data = perfect_joints(tmp_path / "data", tmp_path / "results")
    with pytest.raises(HvcError, match=r"expected .*/c1.json; is .*/results the folder of results\?"):
        score("jhmdb", tmp_path, data)
    report = score("jhmdb", tmp_path / "results", data)
    assert report.headline == "pck_0.1"
    assert report.summary.scores == {f"pck_0.{n}": 100 for n in range(1, 6)}


def test_how_joints_count_can_be_chosen(tmp_path):
    data = perfect_joints(tmp_path / "data", tmp_path / "results")
    joints = layouts.joint_positions(5)
    joints[1:, :3] = np.nan
    for path in (tmp_path / "results").rglob("*.json"):
        write_tracked(path, TrackedJoints([f"{n:05d}" for n in range(1, 6)], 96, 72, joints))

    def pck(*overrides):
        report = score("jhmdb", tmp_path / "results", data, overrides=list(overrides))
        return report.summary.scores["pck_0.1"]

    assert pck() == 100
    assert pck("lost_joints=wrong") == pytest.approx(80)
    assert pck("lost_joints=wrong", "joint_first_frame=true") == pytest.approx(84)
    with pytest.raises(UsageError, match="nothing to choose in the measures of vip"):
        score("vip", tmp_path, tmp_path, overrides=["lost_joints=wrong"])
    with pytest.raises(UsageError, match=r"context=7: .*depend on lost_joints and joint_first_frame only"):
        pck("context=7")  # of the protocol that made the results, which scoring does not know


def test_a_persons_own_video(tmp_path):
    video = make_video(5)
    video.write(tmp_path / "data" / "square")
    report = score(
        "folder",
        shutil.copytree(tmp_path / "data" / "square" / "masks", tmp_path / "r" / "square").parent,
        tmp_path / "data",
    )
    assert report.summary.scores["jf_mean"] == 100


def test_the_command(tmp_path):
    data = layouts.davis2017(tmp_path / "data", "libby", "dogs-jump", frames=8)
    results = tmp_path / "results"
    shutil.copytree(data / "Annotations" / "480p", results)
    for path in (results / "libby").glob("*.png"):
        write_mask(path, np.ones((72, 96), np.uint8))
    words = ("score", "davis2017", "results", "data")
    done = run_hvc(*words, "--csv", "scores.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["dogs-jump"][1] == "100.0"
    assert lines["all"][:2] == ["all", "2"]
    values = hvc_json(*words, cwd=tmp_path)
    assert lines["all"][2] == f"{values['scores']['jf_mean']:.1f}"
    assert values["settings"] == {"merged": False, "official_decay": False}

    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["level"], row["sequence"], row["object"]) for row in rows] == [
        ("all", "", ""),
        *(("sequence", name, "") for name in ("dogs-jump", "libby")),
        *(("object", name, number) for name in ("dogs-jump", "libby") for number in "12"),
    ]
    for row, expected in zip(rows[1:3], values["per_sequence"].values(), strict=True):
        assert {key: float(row[key]) for key in expected} == expected
    assert float(rows[0]["f_decay"]) == values["scores"]["f_decay"]

    # what was scored before is nobody's business
    write_mask(results / "dogs-jump" / "00003.png", np.zeros((72, 96), np.uint8))
    assert hvc_json(*words, cwd=tmp_path)["scores"]["jf_mean"] < values["scores"]["jf_mean"]
    (results / "dogs-jump" / "00003.png").unlink()
    failed = run_hvc(*words, "--csv", "other.csv", cwd=tmp_path)
    assert failed.returncode == 1
    assert "1 of 6 files of results are missing: results/dogs-jump/00003.png" in failed.stderr
    assert failed.stdout == ""
    assert not (tmp_path / "other.csv").exists()
    assert hvc_json(*words, "--sequences", "libby", cwd=tmp_path)["sequences"] == 1


def test_a_part_of_the_sequences_is_an_error_unless_it_is_named(tmp_path):
    data = layouts.davis2016(tmp_path / "data", "bear", "libby", "swing")
    results = tmp_path / "results"
    shutil.copytree(data / "Annotations" / "480p" / "bear", results / "bear")
    with pytest.raises(
        HvcError, match=r"no results of 2 of 3 sequences \(libby, swing\): expected .*--sequences"
    ):
        score("davis2016", results, data)
    assert score("davis2016", results, data, ["bear"]).summary.scores["jf_mean"] == 100
    with pytest.raises(HvcError, match="has no sequence bears"):
        score("davis2016", results, data, ["bears"])


def test_the_wrong_folder_of_results_is_told_from_the_right_one(tmp_path):
    data = layouts.davis2016(tmp_path / "data", "bear")
    with pytest.raises(
        HvcError, match=r"expected .*Annotations/bear/00001.png; is .*Annotations/480p the folder"
    ):
        score("davis2016", data / "Annotations", data)
    with pytest.raises(HvcError, match="no such folder of results"):
        score("davis2016", tmp_path / "nowhere", data)
    (tmp_path / "results.zip").touch()
    with pytest.raises(HvcError, match=r"no such folder .*results.zip \(it is a file: unpack it"):
        score("davis2016", tmp_path / "results.zip", data)


def test_what_is_not_finite_is_null():
    scores = {"j_mean": 50.0, "j_decay": math.nan}  # officially, where the last quarter wraps to nothing
    report = Report("davis2017", "jf_mean", 1, {}, Summary(scores, {"libby": scores}, {}, {}))
    values = json.loads(json.dumps(report.values(), allow_nan=False))
    assert values["scores"] == values["per_sequence"]["libby"] == {"j_mean": 50.0, "j_decay": None}


@pytest.mark.parametrize("benchmark", ["youtube-vos-2018", "youtube-vos-2019", "davis2017-test-dev"])
def test_without_public_ground_truth_there_is_no_score(tmp_path, benchmark):
    with pytest.raises(HvcError, match=f"ground truth of {benchmark} is not public"):
        score(benchmark, tmp_path, tmp_path)


@pytest.mark.parametrize("processes", [False, True])
def test_several_cores_give_what_one_gives(tmp_path, monkeypatch, processes):
    generator = np.random.default_rng(0)
    scenes = []
    for name, frames in (("long", 60), ("short", 5)):
        truth = objects_in(frames)
        labels = np.where(generator.random(truth.shape) < 0.2, 0, truth).astype(np.uint8)
        scenes.append(scene(tmp_path, truth, labels, name))
    sequences, results = [sequence for sequence, _ in scenes], scenes[0][1]
    alone = score_sequences(MaskScorer(), sequences, results, 1)
    if processes:
        monkeypatch.setattr(score_frames, "_THREADS", 1)
        monkeypatch.setattr(score_frames, "_PER_PROCESS", 1)
        monkeypatch.setattr(score_frames, "_in_threads", None)
    assert score_sequences(MaskScorer(), sequences, results, 3) == alone
    assert list(alone) == ["long", "short"]
    assert alone["long"] == MaskScorer().score(sequences[0], results)
    (results / "long" / "00040.png").write_bytes(b"")
    with pytest.raises(HvcError, match=r"long/00040.png: not a readable picture"):
        score_sequences(MaskScorer(), sequences, results, 3)


def test_chunks_hold_every_frame_once_long_sequences_first():
    frames = {"a": [1, 2], "b": list(range(1, 60)), "c": list(range(1, 100))}
    chunks = plan_chunks(frames)
    for name, indices in frames.items():
        parts = sorted((number, part) for of, number, part in chunks if of == name)
        assert [index for _, part in parts for index in part] == indices
    sizes = [len(part) for _, _, part in chunks]
    assert sizes == sorted(sizes, reverse=True)
    assert chunks[0][0] == "c"
    assert json.dumps(chunks)
