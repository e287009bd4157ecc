"""`hvc runs` on real databases: what is listed, in which state, and what happens without any."""

import json
import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import run_hvc

from hvc.base.errors import HvcError, UsageError
from hvc.evaluation.leaderboard.published import headline_of
from hvc.pretrain.tracking.mlflow_client import connect, experiment_id
from hvc.pretrain.tracking.runs import (
    SILENT_SECONDS,
    Score,
    best_scores,
    duration,
    list_runs,
    open_tracking,
    state_of,
    total_steps,
)

HOUR = 3600.0
NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A folder with `outputs/mlflow.db` of six runs, as training and evaluation leave them by now."""
    folder = tmp_path_factory.mktemp("tracked")
    uri = f"sqlite:///{folder}/outputs/mlflow.db"
    client = connect(uri)
    where = experiment_id(client, "hvc", uri)
    now = time.time()

    def make(name, age, status, heard=None, tags=(), params=(), scores=(), experiment=where):
        run = client.create_run(experiment, start_time=int((now - age) * 1000), run_name=name)
        run_id = run.info.run_id
        for key, value in dict(tags).items():
            client.set_tag(run_id, key, value)
        for key, value in dict(params).items():
            client.log_param(run_id, key, value)
        if heard is not None:
            values = {"train/loss": -4.5, "perf/images_per_second": 1234.4, "perf/step_seconds": 0.1}
            for step in (10, 20):
                for key, value in values.items():
                    client.log_metric(run_id, key, value, int((now - heard - 20 + step) * 1000), step)
        for key, step, value in scores:  # a score of today says nothing of whether training lives
            client.log_metric(run_id, key, value, int(now * 1000), step)
        if status in ("FINISHED", "FAILED"):
            client.set_terminated(run_id, status, end_time=int((now - age + 30) * 1000))
        elif status != "RUNNING":
            client.update_run(run_id, status=status)
        return run_id

    full, part = "eval/davis2016/hvc/jf_mean", "eval/folder-x/hvc-subset-abc/jf_mean"
    ids = {
        "alive": make(
            "alive",
            2 * HOUR,
            "RUNNING",
            heard=5,
            params={"steps": "100"},
            tags={"hvc.output": "/runs/alive"},
        ),
        "killed": make("killed", 9 * HOUR, "RUNNING", heard=3.2 * HOUR, scores=[(full, 20, 41.0)]),
        "waiting": make("waiting", 10 * HOUR, "SCHEDULED", heard=9 * HOUR),
        "done": make(
            "done [bold]",
            50 * HOUR,
            "FINISHED",
            heard=48 * HOUR,
            tags={
                "hvc.total_steps": "20",
                "hvc.checkpoint.step": "20",
                "hvc.output": "/runs/done",
                "hvc.checkpoint.address": "s3://bucket/a rather long prefix/done/checkpoints/step-00000020",
            },
            scores=[
                (full, 10, 55.5),
                (full, 20, 52.25),
                (part, 20, 90.0),
                ("eval/vost/hvc/j_mean", 20, 26.0),
                ("eval/vost/hvc/j_last", 20, 15.0),
                ("eval/vip/crw-vip/miou", 20, 37.0),
                ("eval/jhmdb/crw-jhmdb/pck_0.1", 20, 57.5),
                ("eval/jhmdb/crw-jhmdb/pck_0.2", 20, 79.5),
            ],
        ),
        "broken": make("broken", 51 * HOUR, "FAILED"),
        "baseline": make("baseline", 60 * HOUR, "FINISHED", tags={"hvc.baseline": "untrained"}),
    }
    other = client.create_experiment("other")
    ids["elsewhere"] = make("elsewhere", HOUR, "FINISHED", experiment=other)
    return folder, uri, client, ids


def rows_of(database, experiment="hvc", limit=20):
    _, uri, client, _ = database
    return {row.name: row for row in list_runs(client, uri, experiment, limit, time.time(), headline_of)}


def test_states_come_from_what_was_last_heard(database):
    rows = rows_of(database)
    assert {name: row.state for name, row in rows.items()} == {
        "alive": "running",
        "killed": "silent for 3 h",
        "waiting": "stopped, goes on",
        "done [bold]": "finished",
        "broken": "failed",
        "baseline": "baseline",
    }
    assert list(rows) == ["alive", "killed", "waiting", "done [bold]", "broken", "baseline"]


def test_figures_scores_and_checkpoint_of_a_run(database):
    row = rows_of(database)["done [bold]"]
    assert (row.step, row.total_steps, row.loss) == (20, 20, -4.5)
    assert row.images_per_second == pytest.approx(1234.4)
    assert row.scores == (
        Score("davis2016", "hvc", "jf_mean", 55.5, 10),
        Score("folder-x", "hvc-subset-abc", "jf_mean", 90.0, 20),
        Score("jhmdb", "crw-jhmdb", "pck_0.1", 57.5, 20),
        Score("vip", "crw-vip", "miou", 37.0, 20),
        Score("vost", "hvc", "j_mean", 26.0, 20),
    )
    assert row.checkpoint_step == 20
    assert row.checkpoint.endswith("step-00000020")
    assert rows_of(database)["alive"].total_steps == 100
    broken = rows_of(database)["broken"]
    assert (broken.step, broken.loss, broken.checkpoint, broken.scores) == (None, None, None, ())


def test_limit_and_experiments(database):
    assert list(rows_of(database, limit=2)) == ["alive", "killed"]
    assert list(rows_of(database, "other")) == ["elsewhere"]
    assert {row.experiment for row in rows_of(database, None).values()} == {"hvc", "other"}
    with pytest.raises(UsageError, match=r"no experiment 'typo' .*hvc, other"):
        rows_of(database, "typo")


def test_the_address_of_a_checkpoint_is_found_in_the_registry_too(database):
    _, _, client, ids = database
    client.create_registered_model("registered")
    for step in (10, 20):
        tags = {"hvc.step": str(step), "hvc.address": f"/runs/step-{step}"}
        client.create_model_version("registered", f"runs:/{ids['killed']}/x", ids["killed"], tags=tags)
    client.set_tag(ids["killed"], "hvc.checkpoint.step", "20")
    assert rows_of(database)["killed"].checkpoint == "/runs/step-20"


@pytest.mark.slow
def test_the_table_is_plain_and_fits_a_hundred_columns(database):
    folder, _, _, ids = database
    done = run_hvc("runs", "--all", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    table = lines[: lines.index("")]
    assert max(map(len, table)) <= 100
    header, first = table[0], next(line for line in table if "alive" in line)
    for words in ("name", "experiment", "id", "state", "step", "loss", "images/s", "age"):
        assert words in header
    for words in ("hvc", ids["alive"][:8], "running", "20/100", "-4.500", "1,234", "2 h"):
        assert words in first
    assert any("silent for 3 h" in line and "davis2016 41.0" in line for line in table)
    assert any("done [bold]" in line and "davis2016 55.5" in line for line in table)
    assert "scores are J&F unless another measure is named" in lines
    for words in ("folder-x 90.0*", "vost J 26.0", "vip mIoU 37.0", "jhmdb PCK@0.1"):
        assert any(words in line for line in table)
    # Addresses are whole, on a line of their own.
    assert "    s3://bucket/a rather long prefix/done/checkpoints/step-00000020" in lines
    assert any(f"runs:/{ids['done']}@20" in line for line in lines)
    assert "    output /runs/done" in lines
    where = lines.index(f"  alive  {ids['alive'][:8]}, no checkpoint yet")
    assert lines[where + 1] == "    /runs/alive"


@pytest.mark.slow
def test_json_says_the_same(database):
    folder, uri, _, ids = database
    done = run_hvc("runs", "--json", "--limit", "4", cwd=folder.parent, MLFLOW_TRACKING_URI=uri)
    runs = json.loads(done.stdout)["runs"]
    assert [run["run_id"] for run in runs] == [ids[name] for name in ("alive", "killed", "waiting", "done")]
    assert runs[3]["scores"][0] == {
        "benchmark": "davis2016",
        "preset": "hvc",
        "measure": "jf_mean",
        "value": 55.5,
        "step": 10,
    }


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path):
    done = run_hvc("runs", "--tracking-uri", "http://me:hunter2@127.0.0.1:9/", cwd=tmp_path)
    assert done.returncode == 1
    said = (
        "hvc: MLflow at http://127.0.0.1:9/ does not answer (connection refused: nothing listens there); "
    )
    assert done.stderr.startswith(said)
    assert "--tracking-uri" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_no_runs_yet_is_said_with_what_to_do(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    experiment_id(connect(uri), "hvc", uri)
    done = run_hvc("runs", "--tracking-uri", uri, cwd=tmp_path)
    assert done.returncode == 0
    assert "hvc train" in " ".join(done.stdout.split())
    assert "--tracking-uri" in done.stdout


def test_to_look_makes_no_database(tmp_path):
    with pytest.raises(HvcError, match="nothing is recorded"):
        open_tracking(f"sqlite:///{tmp_path}/outputs/mlflow.db")
    assert list(Path(tmp_path).iterdir()) == []


def test_a_server_that_dies_meanwhile_is_an_error_for_people(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = connect(uri)
    (tmp_path / "mlflow.db").write_bytes(b"no database")
    with pytest.raises(HvcError, match="stopped answering"):
        list_runs(client, uri, "hvc", 3, NOW, headline_of)


@given(st.floats(0, 10**7), st.floats(0, 10**4))
def test_silence_is_longer_than_a_few_records(quiet, record_seconds):
    state = state_of("RUNNING", {}, quiet, record_seconds)
    assert (state == "running") == (quiet <= max(SILENT_SECONDS, 5 * record_seconds))
    assert state_of("FINISHED", {}, quiet, record_seconds) == "finished"


@pytest.mark.parametrize(
    ("params", "tags", "metrics", "step", "expected"),
    [
        ({"steps": "300"}, {}, {}, 20, 300),
        ({"steps": "300"}, {"hvc.total_steps": "400"}, {}, 20, 400),
        ({"steps": "None", "epochs": "20"}, {}, {"train/epoch": 0.5}, 100, 4000),
        ({"steps": "None", "epochs": "20"}, {}, {}, 100, None),
        ({}, {}, {"train/epoch": 0.5}, None, None),
    ],
)
def test_steps_of_the_whole_run(params, tags, metrics, step, expected):
    assert total_steps(params, tags, metrics, step) == expected


def test_scores_over_all_sequences_come_first_and_the_best_step_wins():
    whole, part = "eval/davis2016/hvc/jf_mean", "eval/davis2016/hvc-subset-1/jf_mean"
    best = best_scores({part: [(5, 99.0)], whole: [(1, 40.0), (2, 60.0), (3, math.nan), (4, 50.0)]})
    assert best == (Score("davis2016", "hvc", "jf_mean", 60.0, 2),)
    assert best_scores({part: [(5, 99.0)]}) == (Score("davis2016", "hvc-subset-1", "jf_mean", 99.0, 5),)
    assert best_scores({whole: []}) == ()
    merged = whole.replace("/hvc/", "/hvc-merged-0123456/")
    assert best_scores({merged: [(2, 80.0)], whole: [(1, 40.0)]}) == (
        Score("davis2016", "hvc", "jf_mean", 40.0, 1),
    )


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d")]
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_a_run_that_only_holds_others_is_never_silent():
    assert state_of("RUNNING", {"hvc.group": "pipeline"}, 1e9, 0.0) == "group of runs"
    assert state_of("RUNNING", {}, 1e9, 0.0).startswith("silent")
