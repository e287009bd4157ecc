"""What a run learns of an evaluation: all of it, once, and nothing else of the run changes."""

import json

import pytest
from evaluation_video import make_video
from registered_runs import RegisteredRun
from running import hvc_json, run_hvc

from hvc.base.stage import Outcome, Provenance, never
from hvc.evaluation.evaluate import run
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.reports.logged import data_tag
from hvc.evaluation.reports.registered import scores_by_step

METRIC = "eval/folder-clip/custom-{}/jf_mean"


@pytest.fixture
def clip(tmp_path):
    return make_video().write(tmp_path / "clip")


@pytest.fixture
def registered(tmp_path):
    """A running run with two checkpoints."""
    made = RegisteredRun(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "run")
    for step in (10, 20):
        made.save(step)
    return made


def config_of(tmp_path, uri, checkpoint, *overrides, **more):
    values = {
        "checkpoint": checkpoint,
        "benchmark": "folder",
        "data": str(tmp_path / "clip"),
        "output": str(tmp_path / "results"),
        "tracking_uri": uri,
        "workers": 1,
    }
    return EvaluateConfig.parse(values | more, ["protocol.input_size=48", *overrides])


def evaluate(*arguments, **more):
    return run(config_of(*arguments, **more), never, Provenance()).report


def test_a_repeated_evaluation_adds_no_points_and_leaves_the_run_as_it_is(clip, registered, tmp_path):
    client, run_id = registered.client, registered.run_id
    client.log_param(run_id, "steps", 100)
    before = client.get_run(run_id)
    for _ in range(3):
        report = evaluate(tmp_path, registered.uri, f"runs:/{run_id}@10")
    evaluate(tmp_path, registered.uri, "models:/trunks/1", output=str(tmp_path / "elsewhere"))
    assert registered.points(f"{report['metrics']}/jf_mean") == [(10, report["scores"]["jf_mean"])]
    other = evaluate(tmp_path, registered.uri, f"runs:/{run_id}")
    assert other["step"] == 20
    assert [step for step, _ in registered.points(f"{report['metrics']}/jf_mean")] == [10, 20]
    after = client.get_run(run_id)
    assert after.info.status == before.info.status == "RUNNING"
    assert after.info.end_time is None
    assert after.data.params == before.data.params
    noted = {data_tag(report["metrics"]): f"{report['data_digest']} 1"}
    assert after.data.tags == before.data.tags | noted, "which files its scores are of"


def test_one_that_is_stopped_while_it_reports_goes_on(clip, registered, tmp_path):
    config = config_of(tmp_path, registered.uri, f"runs:/{registered.run_id}@10")

    def is_reporting():
        return bool(list((tmp_path / "results").rglob("report.lock")))

    stopped = run(config, is_reporting, Provenance())
    assert (stopped.outcome, stopped.report["finished"]) == (Outcome.STOPPED, 1)
    (record,) = (tmp_path / "results").rglob("sequences/clip.json")
    stamp = record.stat().st_mtime_ns
    assert not list((tmp_path / "results").rglob("clip.gif"))
    report = run(config, never, Provenance()).report
    assert record.stat().st_mtime_ns == stamp
    assert registered.points(f"{report['metrics']}/jf_mean") == [(10, report["scores"]["jf_mean"])]


def test_the_report_in_the_run_says_what_was_measured_how(clip, registered, tmp_path):
    report = evaluate(tmp_path, registered.uri, f"runs:/{registered.run_id[:9]}@20")
    assert report["run_id"] == registered.run_id
    path = f"{report['metrics']}/step-00000020/scores.json"
    logged = json.loads(open(registered.client.download_artifacts(registered.run_id, path)).read())  # noqa: PTH123, SIM115
    assert logged["protocol"]["input_size"] == 48
    assert logged["headline"] == "jf_mean"
    assert logged["per_sequence"]["clip"]["jf_mean"] == pytest.approx(logged["scores"]["jf_mean"])
    assert len(logged["curves"]["clip"]["j"]) == 4
    assert logged["timing"]["seconds"] > 0
    assert logged["timing"]["device"] == ["cpu"]
    assert len(logged["data_digest"]) == len(logged["weights_sha256"]) == 64


def test_a_merged_pair_has_numbers_of_its_own_in_the_run_of_the_first(clip, registered, tmp_path):
    first, second = (f"runs:/{registered.run_id}@{step}" for step in (10, 20))
    alone = evaluate(tmp_path, registered.uri, first)
    merged = evaluate(tmp_path, registered.uri, first, merge=second)
    other = evaluate(tmp_path, registered.uri, first, "protocol.merge_weight=3", merge=second)
    assert merged["step"] == 10
    assert merged["merged"]["step"] == 20
    assert merged["merged"]["weights_sha256"] != merged["weights_sha256"] == alone["weights_sha256"]
    assert merged["preset"] == f"{alone['preset']}-merged-{merged['merged']['weights_sha256'][:7]}"
    assert len({report["results"] for report in (alone, merged, other)}) == 3
    assert merged["merged"]["weight_of_first"] == 1.05
    assert other["preset"] != merged["preset"]
    for report in (alone, merged, other):
        assert registered.points(f"{report['metrics']}/jf_mean") == [(10, report["scores"]["jf_mean"])]
    itself = evaluate(tmp_path, registered.uri, first, merge=first)
    assert itself["scores"] == pytest.approx(alone["scores"], abs=0.5), "the same features twice"


def test_baselines_have_a_run_each(clip, registered, tmp_path):
    names = ["baseline:untrained", "baseline:pixels", "baseline:first-mask"]
    reports = [evaluate(tmp_path, registered.uri, name) for name in names]
    assert len({report["run_id"] for report in reports}) == 3
    assert len({report["results"] for report in reports}) == 3
    tags = [registered.client.get_run(report["run_id"]).data.tags["hvc.baseline"] for report in reports]
    assert tags == ["baseline:untrained/seed-42", *names[1:]]
    again = evaluate(tmp_path, registered.uri, "baseline:pixels", "seed=7")
    assert again["run_id"] == reports[1]["run_id"], "nothing about it is random"
    assert reports[2]["scores"]["jf_mean"] < 100


@pytest.mark.slow
def test_scores_that_the_server_missed_are_sent_by_the_same_command(clip, tmp_path, private_mlflow_server):
    server = private_mlflow_server()
    registered = RegisteredRun(server.uri, tmp_path / "run")
    address = registered.save(10)["address"]
    server.kill()
    command = ("evaluate", address, "folder", str(clip), "protocol.input_size=48")
    options = (*command, "--tracking-uri", server.uri)
    away = run_hvc(*options, cwd=tmp_path)
    assert away.returncode == 0
    assert "scores not logged" in away.stderr
    assert "computes nothing anew" in away.stderr
    (record,) = tmp_path.glob("outputs/eval/folder/*/sequences/clip.json")
    stamp = record.stat().st_mtime_ns
    server.start()
    report = hvc_json(*options, cwd=tmp_path)
    assert record.stat().st_mtime_ns == stamp
    found = scores_by_step(registered.client, registered.run_id, f"{report['metrics']}/jf_mean")
    assert found == {10: report["scores"]["jf_mean"]}
