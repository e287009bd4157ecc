"""New checkpoints are evaluated once, whoever dies meanwhile, and the alias goes to the best."""

import json
import logging
import math
import shutil
import signal
import threading
import time
import uuid
from functools import partial

import mlflow
import numpy as np
import pytest
from evaluation_video import make_video
from mlflow.entities import Metric
from registered_runs import RegisteredRun
from running import hvc_json, run_hvc, start_hvc

from hvc.base.errors import HvcError, PlaceError, UsageError
from hvc.base.stage import Outcome, never
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.results import results_of
from hvc.evaluation.reports.registered import Registered, scores_by_step, version_at
from hvc.evaluation.trunks.method import resolve_method
from hvc.evaluation.watching.best_alias import move_best
from hvc.evaluation.watching.version_claim import VersionClaims
from hvc.evaluation.watching.watch import Watcher, watch
from hvc.pretrain.tracking.registry import aliased_steps

PROTOCOL = ("protocol.input_size=48", "protocol.context=3")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """Address of a database that all tests use, each an experiment of its own."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('watched')}/mlflow.db"
    mlflow.MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture
def made(database, tmp_path):
    """A run without checkpoints, in an experiment and with a model of its own."""
    make_video(frames=4).write(tmp_path / "clip")
    name = uuid.uuid4().hex[:8]
    return RegisteredRun(database, tmp_path / "run", experiment=name, model=f"model-{name}")


def template(tmp_path, uri, *overrides):
    values = {"checkpoint": "baseline:untrained", "benchmark": "folder", "data": str(tmp_path / "clip")}
    values |= {"output": str(tmp_path / "results"), "tracking_uri": uri, "workers": 1}
    return EvaluateConfig.parse(values, [*PROTOCOL, *overrides])


def metric_of(config):
    return f"eval/folder-clip/{config.protocol_name}/jf_mean"


def look(tmp_path, made, *overrides, **more):
    config = template(tmp_path, made.uri, *overrides)
    result, code = watch(config, made.model.removeprefix("model-"), never, once=True, **more)
    return result, code


def score(made, config, **scores):
    """Scores as if these steps had been evaluated before."""
    points = [
        Metric(metric_of(config), value, int(1000 * time.time()), int(step[1:]))
        for step, value in scores.items()
    ]
    made.client.log_batch(made.run_id, metrics=points)


def test_each_checkpoint_is_evaluated_once(made, tmp_path):
    made.save(1)
    made.save(2)
    result, code = look(tmp_path, made)
    assert (result.outcome, code) == (Outcome.DONE, 0)
    assert result.report["evaluated"] == [f"models:/{made.model}/{n}" for n in (2, 1)], "the newest first"
    metric = metric_of(template(tmp_path, made.uri))
    points = made.points(metric)
    assert [step for step, _ in points] == [1, 2]
    assert look(tmp_path, made)[0].report["evaluated"] == []
    made.save(3)
    assert look(tmp_path, made)[0].report["evaluated"] == [f"models:/{made.model}/3"]
    assert made.points(metric)[:2] == points
    best = max(made.points(metric), key=lambda point: (point[1], point[0]))
    assert made.aliased_step("best") == best[0]
    assert made.aliased_step("newest") == 3
    assert made.client.get_run(made.run_id).info.status == "RUNNING"
    assert aliased_steps(made.client, made.model, made.run_id) == {best[0], 3}, "training keeps both"


def test_other_experiments_and_strangers_versions_are_left_alone(made, tmp_path, database):
    other = RegisteredRun(database, tmp_path / "other", experiment=f"{made.model}-other", model=made.model)
    other.save(1)
    made.save(2)
    made.client.create_model_version(made.model, "runs:/x/model", made.run_id)
    deleted = RegisteredRun(database, tmp_path / "deleted", experiment=made.model[6:], model=made.model)
    deleted.save(3)
    deleted.client.delete_run(deleted.run_id)
    assert look(tmp_path, made)[0].report["evaluated"] == [f"models:/{made.model}/2"]
    assert other.points(metric_of(template(tmp_path, made.uri))) == []


def test_the_alias_goes_to_the_best_of_equal_ones_the_newer_and_never_back(made, tmp_path):
    config = template(tmp_path, made.uri)
    records = {step: made.save(step) for step in (1, 2, 3, 4)}
    score(made, config, s1=50.0, s2=70.0, s3=70.0, s4=math.nan)
    made.client.set_registered_model_alias(made.model, "best", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watcher, "_evaluate", lambda *_: pytest.fail("all of them have scores"))
        look(tmp_path, made)
        assert made.aliased_step("best") == 3, "what is no number is no score"
        score(made, config, s4=60.0)
        look(tmp_path, made)
        assert made.aliased_step("best") == 3
        made.client.set_registered_model_alias(made.model, "best", "2")
        look(tmp_path, made)
        assert made.aliased_step("best") == 3, "of equal ones the newer"
        from hvc.base.storage import open_store

        open_store(records[3]["address"]).delete("COMPLETE")
        look(tmp_path, made)
        assert made.aliased_step("best") == 3, "what scored better may come back"
        made.client.delete_registered_model_alias(made.model, "best")
        result, _ = look(tmp_path, made)
        assert made.aliased_step("best") == 2, "what is gone is not pointed to"
        assert result.report["best"] == {made.model: f"models:/{made.model}/2"}


def test_an_alias_follows_one_metric(made, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for step in (1, 2):
        made.save(step)
    config, other = template(tmp_path, made.uri), template(tmp_path, made.uri, "protocol.top_k=5")
    score(made, config, s1=50.0, s2=40.0)
    score(made, other, s1=10.0, s2=20.0)
    look(tmp_path, made)
    look(tmp_path, made, "protocol.top_k=5")
    assert made.aliased_step("best") == 1
    assert f"best follows {metric_of(config)} and stays; --alias names another one" in caplog.text
    look(tmp_path, made, "protocol.top_k=5", alias="best-of-five")
    assert (made.aliased_step("best"), made.aliased_step("best-of-five")) == (1, 2)


def test_one_that_cannot_be_evaluated_is_said_and_the_others_are_done(made, tmp_path, caplog):
    records = {step: made.save(step) for step in (1, 2, 3)}
    encoder = f"{records[2]['address']}/encoder.safetensors"
    with open(encoder, "r+b") as file:  # noqa: PTH123
        file.seek(-1, 2)
        file.write(b"?")
    from hvc.base.storage import open_store

    open_store(records[1]["address"]).delete("COMPLETE")
    result, code = look(tmp_path, made)
    assert code == 1
    assert result.report["evaluated"] == [f"models:/{made.model}/3"]
    assert list(result.report["failed"]) == [f"models:/{made.model}/2"], "a pruned one is no failure"
    assert "altered since it was written" in caplog.text


def test_scores_of_other_files_are_none_of_these(made, tmp_path):
    for folder, shift in (("m1", 0), ("m2", 9)):
        video = make_video(frames=4)
        video.labels[:] = np.roll(video.labels, shift, axis=1)
        video.write(tmp_path / folder / "clip")
    for step in (1, 2):
        made.save(step)

    def newest(folder):
        config = template(tmp_path, made.uri).model_copy(update={"data": str(tmp_path / folder / "clip")})
        result, _ = watch(config, made.model.removeprefix("model-"), never, once=True)
        return len(result.report["evaluated"]), scores_by_step(made.client, made.run_id, metric_of(config))

    first, other = newest("m1"), newest("m2")
    assert first[0] == other[0] == 2
    assert first[1] != other[1]
    assert newest("m2") == (0, other[1]), "they are of these files now"
    assert newest("m1") == first, "and the first ones again, later than the others"


def test_redrawn_masks_are_scored_anew_also_while_it_watches(made, tmp_path, caplog):
    for step in (1, 2):
        made.save(step)
    config = template(tmp_path, made.uri)
    watcher = Watcher(config, made.model[6:], never)
    while watcher.one():
        pass
    before = scores_by_step(made.client, made.run_id, metric_of(config))
    video = make_video(frames=4)
    video.labels[:] = np.roll(video.labels, 9, axis=1)
    shutil.rmtree(tmp_path / "clip")
    video.write(tmp_path / "clip")
    assert not watcher.one(), "nothing is new yet"
    made.save(3)
    while watcher.one():
        pass
    after = scores_by_step(made.client, made.run_id, metric_of(config))
    assert all(after[step] != before[step] for step in (1, 2))
    assert "every checkpoint is evaluated again" in caplog.text
    assert sorted(watcher.done.evaluated) == [f"models:/{made.model}/{n}" for n in (1, 2, 3)]
    assert made.aliased_step("best") == max(after, key=lambda step: (after[step], step))


@pytest.mark.parametrize("taken", ["results", "results/folder", "labels"])
def test_a_place_that_takes_nothing_is_no_fault_of_the_checkpoint(made, tmp_path, taken):
    made.save(1)
    config = template(tmp_path, made.uri)
    if taken == "labels":
        method = resolve_method(
            config.model_copy(update={"checkpoint": f"models:/{made.model}/1"}), made.uri
        )
        obstacle = results_of(config, method).labels / "clip"
    else:
        obstacle = tmp_path / taken
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    obstacle.write_bytes(b"")
    watcher = Watcher(config, made.model[6:], never)
    for _ in range(2):
        with pytest.raises(PlaceError, match="cannot write"):
            watcher.one()
    assert watcher.done.failed == {}
    obstacle.unlink()
    assert watcher.one()
    assert watcher.done.evaluated == [f"models:/{made.model}/1"]


def test_an_alias_that_was_moved_to_a_better_one_meanwhile_stays(made):
    for step in (1, 2):
        made.save(step)
    best = version_at(made.client, made.model, "1")
    made.client.set_registered_model_alias(made.model, "best", "2")  # after "1" was found to be the best
    scores = {1: 50.0, 2: 60.0}
    move = partial(move_best, made.client, "best", "eval/x/y/jf_mean", best, [])
    assert not move(lambda version: scores[version.step])
    assert made.aliased_step("best") == 2
    assert move(lambda version: {**scores, 2: math.nan}[version.step]), "its score is of other files"
    assert made.aliased_step("best") == 1


def test_what_another_watcher_is_at_work_on_is_left_to_it(made, tmp_path, monkeypatch):
    from hvc.evaluation.watching import version_claim

    made.save(1)
    config = template(tmp_path, made.uri)
    tag = f"hvc.evaluating/{metric_of(config).rpartition('/')[0]}"
    made.client.set_model_version_tag(made.model, "1", tag, "far-away 17 abcdef01 0")
    watcher = Watcher(config, made.model[6:], never)
    assert not watcher.one()
    monkeypatch.setattr(version_claim, "STALE_SECONDS", 0.5)
    assert not watcher.one(), "a claim that is seen for the second time may still be alive"
    time.sleep(0.6)
    assert watcher.one(), "its owner has said nothing for too long"
    assert tag not in made.client.get_model_version(made.model, "1").tags
    assert not watcher.one()


def test_of_two_that_claim_at_once_one_gets_it(made):
    made.save(1)
    tags = dict(made.client.get_model_version(made.model, "1").tags)
    version = Registered(made.model, "1", made.run_id, 1, "there", 0, tags)
    got, start = [], threading.Barrier(3)

    def claim():
        claims = VersionClaims("eval/x/y")
        start.wait()
        with claims.hold(made.client, version) as ours:
            got.append(ours)
            start.wait(30)

    threads = [threading.Thread(target=claim) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count(True) <= 1
    assert len(got) == 3


def test_what_makes_no_sense_is_refused_at_once(made, tmp_path):
    values = {"checkpoint": "baseline:untrained", "benchmark": "davis2017-test-dev", "data": str(tmp_path)}
    with pytest.raises(UsageError, match="not public"):
        Watcher(EvaluateConfig.parse(values), "x", never)
    make_video(frames=4).write(tmp_path / "bare" / "clip", masks=1)
    bare = template(tmp_path / "bare", made.uri)
    with pytest.raises(UsageError, match="nothing can be scored"):
        Watcher(bare, "x", never)
    with pytest.raises(HvcError, match="no experiment 'nowhere' yet; there are: .*" + made.model[6:]):
        watch(template(tmp_path, made.uri), "nowhere", never, once=True)


def arguments(made, *more):
    return (
        "watch", made.model[6:], "folder", "clip", *PROTOCOL, "workers=1", "--tracking-uri", made.uri, *more
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_goes_on_after_kills_and_ends_when_asked(made, tmp_path):
    metric = metric_of(template(tmp_path, made.uri))
    for step in (1, 2, 3):
        made.save(step)
    first = start_hvc(*arguments(made, "--interval", "1"), cwd=tmp_path, log=tmp_path / "first")
    wait(lambda: len(made.points(metric)) >= 1, first, tmp_path / "first")
    first.kill()
    first.wait()
    second = start_hvc(*arguments(made, "--interval", "1"), cwd=tmp_path, log=tmp_path / "second")
    wait(lambda: len(made.points(metric)) == 3, second, tmp_path / "second")
    made.save(4)
    wait(lambda: len(made.points(metric)) == 4, second, tmp_path / "second")
    wait(lambda: made.aliased_step("best") is not None, second, tmp_path / "second")
    second.send_signal(signal.SIGTERM)
    assert second.wait(30) == 75
    assert [step for step, _ in made.points(metric)] == [1, 2, 3, 4]
    once = hvc_json(*arguments(made, "--once"), cwd=tmp_path)
    assert once["evaluated"] == []
    for version in made.client.search_model_versions(f"name = '{made.model}'"):
        claims = [tag for tag in version.tags if tag.startswith("hvc.evaluating/")]
        assert version.version != "4" or not claims


@pytest.mark.slow
def test_two_watchers_share_the_work(made, tmp_path):
    for step in (1, 2, 3, 4):
        made.save(step)
    logs = [tmp_path / "one", tmp_path / "two"]
    options = arguments(made, "--once", "--json", "--output", "apart")
    watchers = [start_hvc(*options, cwd=tmp_path, log=log) for log in logs]
    assert [process.wait(240) for process in watchers] == [0, 0], [log.read_text() for log in logs]
    texts = [log.read_text() for log in logs]
    done = [version for text in texts for version in json.loads(text[text.index("{\n") :])["evaluated"]]
    assert sorted(done) == [f"models:/{made.model}/{number}" for number in (1, 2, 3, 4)]
    assert [step for step, _ in made.points(metric_of(template(tmp_path, made.uri)))] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_server_that_goes_away_is_waited_for(tmp_path, private_mlflow_server):
    server = private_mlflow_server()
    make_video(frames=4).write(tmp_path / "clip")
    made = RegisteredRun(server.uri, tmp_path / "run", experiment="away", model="model-away")
    metric = metric_of(template(tmp_path, made.uri))
    made.save(1)
    server.kill()
    done = run_hvc(*arguments(made, "--once"), cwd=tmp_path)
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    log = tmp_path / "log"
    process = start_hvc(*arguments(made, "--interval", "0.5"), cwd=tmp_path, log=log)
    wait(lambda: "looking again" in log.read_text(), process, log)
    server.start()
    wait(lambda: made.points(metric), process, log)
    server.kill()
    wait(lambda: log.read_text().count("looking again") == 2, process, log)
    server.start()
    made.save(2)
    wait(lambda: len(made.points(metric)) == 2, process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 75
    assert "Traceback" not in log.read_text()


def wait(condition, process, log, seconds=150):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
