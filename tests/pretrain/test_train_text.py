"""The last words of `hvc train`: few, what is needed first, and each of them true."""

import pytest

from hvc.base.stage import Outcome, Result
from hvc.pretrain.train_text import report_lines

DONE = {
    "step": 18500,
    "steps": 18500,
    "checkpoint": "/runs/a b/checkpoints/step-00018500",
    "metrics": {"train/loss": -3.25, "perf/images_per_second": 1500.4, "train/static": 0.5},
    "run_id": "c122daf8ca2145218edf87b6cf596019",
    "tracking_uri": "sqlite:////data/my outputs/mlflow.db",
}
PAGE = "/#/experiments?workflowType=machine_learning"


def test_a_finished_run():
    assert report_lines(Result(Outcome.DONE, DONE)) == [
        "outcome: done",
        "checkpoint: /runs/a b/checkpoints/step-00018500",
        "step: 18,500 of 18,500, loss -3.250, 1,500 images/s",
        "run: runs:/c122daf8ca2145218edf87b6cf596019",
        "look: mlflow ui --backend-store-uri 'sqlite:////data/my outputs/mlflow.db'",
        f"  at: http://127.0.0.1:5000{PAGE}",
        "next: hvc evaluate runs:/c122daf8ca2145218edf87b6cf596019 davis2016 DAVIS    (or: folder CLIP)",
    ]


def test_a_run_at_a_server_that_was_stopped():
    report = DONE | {"step": 3, "tracking_uri": "https://mlflow.example.org/", "metrics": {}}
    lines = report_lines(Result(Outcome.STOPPED, report))
    assert lines[0] == "outcome: stopped"
    assert lines[2] == "step: 3 of 18,500"
    assert f"look: https://mlflow.example.org{PAGE}" in lines
    assert lines[-1] == "next: the same command goes on from here"


@pytest.mark.parametrize("tracked", [{"run_id": None, "tracking_uri": "http://127.0.0.1:9"}, {}])
def test_a_run_that_no_server_knows_is_evaluated_by_its_checkpoint(tracked):
    report = {key: value for key, value in DONE.items() if key not in ("run_id", "tracking_uri")}
    lines = report_lines(Result(Outcome.DONE, report | tracked))
    assert any("hvc sync" in line for line in lines) == bool(tracked)
    assert lines[-1].startswith("next: hvc evaluate '/runs/a b/checkpoints/step-00018500' davis2016")
