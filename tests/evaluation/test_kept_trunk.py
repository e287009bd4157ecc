"""An evaluation in parts goes on after training has removed its checkpoint."""

import shutil

import pytest
from evaluation_video import make_video
from registered_runs import RegisteredRun

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Outcome, Provenance, never
from hvc.evaluation.evaluate import run
from hvc.evaluation.evaluate_config import EvaluateConfig


@pytest.fixture
def made(tmp_path):
    """A run with one checkpoint, and the config of its evaluation in two parts."""
    for name in ("one", "two"):
        make_video(frames=3).write(tmp_path / "clips" / name)
    made = RegisteredRun(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "run")
    made.save(10)
    values = {
        "checkpoint": f"runs:/{made.run_id}@10",
        "benchmark": "folder",
        "data": str(tmp_path / "clips"),
    }
    values |= {"output": str(tmp_path / "results"), "tracking_uri": made.uri, "parts": 2, "workers": 1}
    return made, EvaluateConfig.parse(values | {"device": "cpu", "protocol": {"input_size": 32}})


def go(config, **more):
    return run(config.model_copy(update=more), never, Provenance())


def prune(made):
    """As training does it: a newer one is there, then the old one goes."""
    made.save(20)
    shutil.rmtree(made.folder / "checkpoints" / "step-00000010")


def test_later_parts_and_the_scores_need_no_checkpoint(made, tmp_path):
    made, config = made
    assert go(config, part=0).outcome is Outcome.DONE
    prune(made)
    assert go(config, part=1).outcome is Outcome.DONE
    report = go(config).report
    assert (report["step"], report["run_id"], report["sequences"]) == (10, made.run_id, 2)
    assert any(path.endswith("features.png") for path in report["pictures"])
    assert made.points(f"{report['metrics']}/jf_mean") == [(10, report["scores"]["jf_mean"])]
    assert len(list((tmp_path / "results" / "folder").iterdir())) == 1
    assert not list(tmp_path.glob("results/folder/*/*trunk*")), "it goes with the scores"


def test_without_a_part_in_time_it_is_refused(made):
    made, config = made
    prune(made)
    with pytest.raises(UsageError, match="was removed"):
        go(config, part=0)


def test_a_kept_trunk_that_was_altered_is_not_used(made, tmp_path):
    made, config = made
    go(config, part=0)
    prune(made)
    (kept,) = tmp_path.glob("results/folder/*/trunk-*.safetensors")
    kept.write_bytes(b"other")
    with pytest.raises(HvcError, match="altered since it was written"):
        go(config, part=1)


def test_what_a_server_did_not_take_can_be_sent_later(made, tmp_path, monkeypatch):
    made, config = made
    go(config, part=0)
    prune(made)
    with monkeypatch.context() as patched:
        patched.setattr("hvc.evaluation.evaluate.log_to_run", lambda *_: {"run_id": None})
        go(config)
    assert list(tmp_path.glob("results/folder/*/trunk-*.safetensors"))
    assert go(config).report["run_id"] == made.run_id
