"""`hvc evaluate` end to end: from a run's name to scores in that run."""

import json

import pytest
from evaluation_video import make_video
from running import hvc_json, run_hvc

from hvc.evaluation.masks import read_mask

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
    history = client.get_metric_history(result["run_id"], "eval/folder/hvc/jf_mean")
    assert (step, pytest.approx(report["scores"]["jf_mean"])) in [(m.step, m.value) for m in history]
    assert client.get_run(result["run_id"]).info.status == "FINISHED"
    logged = f"eval/folder/hvc/step-{step:08d}"
    names = {item.path for item in client.list_artifacts(result["run_id"], logged)}
    assert names == {f"{logged}/blocks.png", f"{logged}/scores.json"}


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


def test_a_step_that_was_not_recorded(trained, clip, tmp_path):
    folder, result = trained
    tracking = ("--tracking-uri", f"sqlite:///{folder}/mlflow.db")
    reference = f"runs:/{result['run_id']}@5"
    done = run_hvc("evaluate", reference, "folder", str(clip), *tracking, cwd=tmp_path)
    assert done.returncode == 1
    assert "recorded steps are [2, 4, 6]" in done.stderr
