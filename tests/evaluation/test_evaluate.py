"""`hvc evaluate` end to end: from a run's name to scores in that run."""

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_video import make_video
from running import hvc_json, run_hvc

from hvc.evaluation.layouts.masks import read_mask, write_mask

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_video(ids=(1, 2)).write(tmp_path_factory.mktemp("clip") / "blocks")


@pytest.mark.parametrize("form", ["runs:/{id}", "runs:/{id}@4", "models:/hvc@newest", "models:/hvc@latest"])
def test_scores_go_to_the_run_that_made_the_checkpoint(trained, clip, tmp_path, form):
    import mlflow

    folder, result = trained
    uri = f"sqlite:///{folder}/mlflow.db"
    reference = form.format(id=result["run_id"])
    report = hvc_json("evaluate", reference, "folder", str(clip), "--tracking-uri", uri, cwd=tmp_path)
    step = 4 if "@4" in form else 6
    assert (report["step"], report["run_id"], report["preset"]) == (step, result["run_id"], "hvc")
    assert 0 < report["scores"]["jf_mean"] <= 100
    assert report["per_object"].keys() == {"blocks/1", "blocks/2"}
    client = mlflow.MlflowClient(uri)
    history = client.get_metric_history(result["run_id"], "eval/folder-blocks/hvc/jf_mean")
    assert (step, pytest.approx(report["scores"]["jf_mean"])) in [(m.step, m.value) for m in history]
    assert client.get_run(result["run_id"]).info.status == "FINISHED"
    logged = f"eval/folder-blocks/hvc/step-{step:08d}"
    names = {item.path for item in client.list_artifacts(result["run_id"], logged)}
    files = {"scores.json", "blocks.png", "blocks.gif", "blocks-scores.png", "features.png"}
    assert names == {f"{logged}/{name}" for name in files}


def test_a_checkpoint_folder_and_its_trunk_agree(trained, clip, tmp_path):
    folder, result = trained
    uri = f"sqlite:///{folder}/mlflow.db"
    options = ["folder", str(clip), "protocol.context=3", "--tracking-uri", uri]
    by_folder = hvc_json("evaluate", result["checkpoint"], *options, cwd=tmp_path)
    by_file = hvc_json("evaluate", result["checkpoint"] + "/encoder.safetensors", *options, cwd=tmp_path)
    assert by_folder["run_id"] == result["run_id"]
    assert by_file["run_id"] is None
    assert by_folder["scores"] == by_file["scores"]
    assert by_folder["preset"].startswith("custom-")


def test_what_is_finished_is_kept_and_labels_are_readable(clip, tmp_path):
    first = hvc_json("evaluate", "baseline:untrained", "folder", str(clip), cwd=tmp_path)
    (record,) = tmp_path.glob("outputs/eval/folder/*/sequences/blocks.json")
    stamp = record.stat().st_mtime_ns
    second = hvc_json("evaluate", "baseline:untrained", "folder", str(clip), cwd=tmp_path)
    assert record.stat().st_mtime_ns == stamp
    assert second["scores"] == first["scores"]
    assert second["run_id"] == first["run_id"]
    labels = sorted(tmp_path.glob("outputs/eval/folder/*/labels/blocks/*.png"))
    assert len(labels) == 6
    assert set(read_mask(labels[-1]).flat) <= {0, 1, 2}


def test_ids_that_the_first_mask_skips_are_no_objects(tmp_path):
    clip = make_video(ids=(1, 5)).write(tmp_path / "gap")
    report = hvc_json("evaluate", "baseline:untrained", "folder", str(clip), cwd=tmp_path)
    assert len(report["per_object"]) == 2


def test_a_clip_without_annotations_is_labelled_but_not_scored(tmp_path):
    clip = make_video().write(tmp_path / "bare", masks=1)
    report = hvc_json("evaluate", "baseline:untrained", "folder", str(clip), cwd=tmp_path)
    assert report["scores"].startswith("none")
    assert json.loads((tmp_path / report["results"] / "scores.json").read_text())["frames"] == 6


def test_clips_that_stay_out_of_the_scores_are_named(tmp_path):
    make_video().write(tmp_path / "clips" / "whole")
    make_video().write(tmp_path / "clips" / "bare", masks=1)
    command = ("evaluate", "baseline:first-mask", "folder", "clips")
    done = run_hvc(*command, "--json", cwd=tmp_path)
    assert list(json.loads(done.stdout)["per_sequence"]) == ["whole"]
    assert "1 of 2 sequences are labelled but not scored" in done.stderr
    assert "bare/frames/00001." in done.stderr
    assert "not scored" not in run_hvc(*command, "sequences=[whole]", cwd=tmp_path).stderr


def test_other_files_under_the_same_path_are_computed_again(tmp_path):
    video = make_video()
    clip = video.write(tmp_path / "clip")
    command = ("evaluate", "baseline:untrained", "folder", str(clip), "protocol.input_size=48")
    first = hvc_json(*command, cwd=tmp_path)
    for index in range(1, 6):
        write_mask(clip / "masks" / f"{index:05d}.png", np.roll(video.labels[index], 20, axis=0))
    second = hvc_json(*command, cwd=tmp_path)
    assert second["results"] == first["results"]
    assert second["data_digest"] != first["data_digest"]
    assert second["scores"]["jf_mean"] != first["scores"]["jf_mean"]


def test_a_subset_and_other_seeds_have_numbers_of_their_own(tmp_path):
    import mlflow

    for name in ("one", "two"):
        make_video().write(tmp_path / "clips" / name)
    command = ("evaluate", "baseline:untrained", "folder", "clips", "protocol.input_size=48")
    whole = hvc_json(*command, cwd=tmp_path)
    part = hvc_json(*command, "sequences=[two,two]", cwd=tmp_path)
    seed = hvc_json(*command, "seed=7", "sequences=[two,one]", cwd=tmp_path)
    assert seed["preset"] == whole["preset"]
    assert part["preset"].startswith(whole["preset"] + "-subset-")
    assert (part["sequences"], whole["sequences"]) == (1, 2)
    results = tmp_path / whole["results"]
    assert part["results"] == whole["results"]
    assert json.loads((results / "scores.json").read_text())["sequences"] == 2
    assert json.loads((results / f"scores{part['preset'][len(whole['preset']) :]}.json").read_text())
    assert part["run_id"] == whole["run_id"] != seed["run_id"]
    run = mlflow.MlflowClient(whole["tracking_uri"]).get_run(whole["run_id"])
    assert run.data.tags["hvc.baseline"] == "baseline:untrained/seed-42"
    assert run.info.run_name == "baseline:untrained"
    for report in (whole, part):
        name = f"eval/folder-clips/{report['preset']}/jf_mean"
        assert run.data.metrics[name] == pytest.approx(report["scores"]["jf_mean"])


def test_a_checkpoint_folder_knows_where_its_run_is_recorded(trained, clip, tmp_path):
    folder, result = trained
    command = ("evaluate", result["checkpoint"], "folder", str(clip), "protocol.input_size=48")
    report = hvc_json(*command, cwd=tmp_path)
    assert report["tracking_uri"] == f"sqlite:///{folder}/mlflow.db"
    assert report["run_id"] == result["run_id"]
    elsewhere = hvc_json(*command, cwd=tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/other.db")
    assert elsewhere["run_id"] is None


def test_a_run_that_is_elsewhere(clip, tmp_path):
    done = run_hvc("evaluate", "runs:/abc", "folder", str(clip), cwd=tmp_path)
    assert done.returncode == 1
    assert "commands take outputs/mlflow.db of the folder" in done.stderr


def test_a_password_in_the_environment_is_shown_nowhere(clip, tmp_path):
    command = ("evaluate", "baseline:untrained", "folder", str(clip), "protocol.input_size=48", "--json")
    uri = "http://somebody:hunter2@127.0.0.1:9/mlflow"
    done = run_hvc(*command, cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tracking_uri"] == "http://127.0.0.1:9/mlflow"
    assert "scores not logged" in done.stderr
    written = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert not [text for text in (done.stdout, done.stderr, *written) if "hunter2" in text]
    done = run_hvc("evaluate", "runs:/abc", "folder", str(clip), cwd=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 1
    assert "hunter2" not in done.stderr


def test_a_bad_annotation_is_found_before_anything_is_propagated(tmp_path):
    make_video().write(tmp_path / "clips" / "good")
    bad = make_video().write(tmp_path / "clips" / "late")
    write_mask(bad / "masks" / "00005.png", np.zeros((4, 5), np.uint8))
    done = run_hvc("evaluate", "baseline:untrained", "folder", "clips", cwd=tmp_path)
    assert done.returncode == 1
    assert "sequence late: " in done.stderr
    assert not list(tmp_path.glob("outputs/eval/folder/*/labels"))


def test_pictures_that_cannot_be_written_leave_the_scores(tmp_path):
    clip = make_video().write(tmp_path / "clip")
    command = ("evaluate", "baseline:first-mask", "folder", str(clip))
    first = hvc_json(*command, cwd=tmp_path)
    strip = Path(first["results"], "pictures", "clip.png")
    strip.unlink()
    strip.mkdir()
    failed = run_hvc(*command, cwd=tmp_path)
    assert failed.returncode == 1
    assert "hvc: cannot draw into" in failed.stderr
    assert "the same command draws what is missing" in failed.stderr
    assert "Traceback" not in failed.stderr
    strip.rmdir()
    assert hvc_json(*command, cwd=tmp_path)["scores"] == first["scores"]
    assert strip.is_file()


def test_a_step_that_was_not_recorded(trained, clip, tmp_path):
    folder, result = trained
    tracking = ("--tracking-uri", f"sqlite:///{folder}/mlflow.db")
    reference = f"runs:/{result['run_id']}@5"
    done = run_hvc("evaluate", reference, "folder", str(clip), *tracking, cwd=tmp_path)
    assert done.returncode == 1
    assert "recorded steps are [2, 4, 6]" in done.stderr
