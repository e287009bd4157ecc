"""What a pipeline says of itself at its end, and what it knows between two commands."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.slurm.attempts import Attempt, Records
from hvc.slurm.known_jobs import KnownJob
from hvc.slurm.pipeline_plan import Batch, Task, digest_of
from hvc.slurm.pipeline_report import Row, best, is_reported, lines, report_task, rows_of
from hvc.slurm.pipeline_state import PipelineState, Sent

WORDS = st.text("abc-/=", min_size=1, max_size=8)


def task(key, stage="train", need=None, digest=""):
    return Task(key, key, stage, digest or digest_of(key), f"/nowhere/{key}", need=need)


def scored(key, score, benchmark="davis2017"):
    return Row(key, "evaluate", "done", "/out", "", "0123456789ab", benchmark, "jf_mean", score)


def test_the_table_has_the_best_first_and_what_failed_last():
    rows = [
        Row("train/a", "train", "done", "/runs/a", run_id="0123456789ab"),
        Row("train/b", "train", "failed", "/runs/b", "job 7_1: NonFiniteError: the loss is nan"),
        scored("evaluate/a", 61.5),
        Row("evaluate/b", "evaluate", "not begun", "/x", "train/b is not done"),
        scored("evaluate/c", 70.25),
    ]
    assert lines(rows) == [
        "evaluate/c  done   70.25 jf_mean  run 01234567",
        "evaluate/a  done   61.50 jf_mean  run 01234567",
        "train/a     done  /runs/a  run 01234567",
        "train/b     failed: job 7_1: NonFiniteError: the loss is nan",
        "evaluate/b  not begun: train/b is not done",
    ]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats()), max_size=6))
def test_the_best_of_each_benchmark_is_a_metric_and_nothing_else(points):
    found = best([scored("x", value, name) for name, value in points])
    finite = [(name, value) for name, value in points if math.isfinite(value)]
    assert found == {
        f"best/{name}/jf_mean": max(value for other, value in finite if other == name)
        for name in {name for name, _ in finite}
    }


def test_a_failure_is_told_by_its_error_and_what_follows_by_the_failure(tmp_path):
    train, evaluate = task("train"), task("evaluate", "evaluate", need="train")
    state = PipelineState(tasks=[train, evaluate])
    folder = tmp_path / "train-1"
    state.sent = [Sent(str(folder), ("train",), (train.digest,), "whole", "7")]
    first, second = rows_of(state, state.tasks, {})
    assert (first.state, second.state) == ("failed", "not begun")
    assert first.why == f"job 7: see {folder}"
    assert second.why == "train is not done"
    assert (
        rows_of(state, state.tasks, {"7": KnownJob("7", "CANCELLED")})[0].why
        == "job 7: Slurm says CANCELLED"
    )
    record = Attempt(attempt=1, job_id="7", job_file="job.json", nodes="n1", started=0.0)
    Records(folder, None).write(replace(record, outcome="failed", reason="rank 0: OSError: no space"))
    assert rows_of(state, state.tasks, {})[0].why == "job 7: rank 0: OSError: no space"
    assert rows_of(state, [task("train", digest="other")], {})[0].why == "was not submitted"


def test_an_array_is_told_apart_by_its_tasks(tmp_path):
    members = [task(f"train/{n}") for n in range(3)]
    sent = Sent(
        str(tmp_path), tuple(m.key for m in members), tuple(m.digest for m in members), "whole", "7"
    )
    state = PipelineState(tasks=members, sent=[sent])
    known = {
        "7_0": KnownJob("7_0", "COMPLETED"),
        "7_1": KnownJob("7_1", "RUNNING"),
        "7_2": KnownJob("7_2", "PENDING"),
    }
    assert state.live(members, known) == {"train/1": "7_1", "train/2": "7_2"}
    changed = [members[0], task("train/1", digest="other"), members[2]]
    assert state.live(changed, known) == {"train/2": "7_2"}
    assert state.outdated(changed, known) == {"7_1": "train/1"}
    elsewhere = {"7_1": KnownJob("7_1", "RUNNING", command="/other/submission.sh")}
    assert state.live(members, elsewhere) == {}, "an id of another cluster"


def test_parts_that_nobody_wants_any_more_are_named_by_their_array(tmp_path):
    one = task("evaluate")
    parts = Sent(str(tmp_path / "a"), (one.key,), (one.digest,), "parts", "8")
    join = Sent(str(tmp_path / "b"), (one.key,), (one.digest,), "join", "9")
    state = PipelineState(tasks=[one], sent=[parts, join])
    known = {
        "8_1": KnownJob("8_1", "RUNNING"),
        "9": KnownJob("9", "PENDING"),
        "80": KnownJob("80", "RUNNING"),
    }
    assert state.outdated([one], known) == {}
    assert state.outdated([task("evaluate", digest="other")], known) == {"8": "evaluate", "9": "evaluate"}
    del known["8_1"]
    assert state.outdated([task("evaluate", digest="other")], known) == {"9": "evaluate"}


def test_a_job_whose_id_was_lost_is_found_by_its_folder(tmp_path):
    batch = Batch((task("train/0"), task("train/1")))
    state = PipelineState(sent=[Sent.of(batch, tmp_path / "a"), Sent.of(batch, tmp_path / "b")])
    known = {"9_1": KnownJob("9_1", "PENDING", command=f"{tmp_path}/b/submission_file_x.sh")}
    state.refresh(known)
    assert [(one.folder, one.job_id) for one in state.sent] == [(str(tmp_path / "b"), "9")]


def test_a_job_that_was_submitted_again_is_known_by_its_new_id(tmp_path):
    """`hvc requeue` of one that failed: the folder stays, the id is another."""
    state = PipelineState(sent=[Sent.of(Batch((task("train"),)), tmp_path)])
    (tmp_path / "submission.json").write_text('{"job_id": "8"}')
    state.refresh({})
    assert state.live([task("train")], {"8": KnownJob("8", "RUNNING")}) == {"train": "8"}
    (tmp_path / "submission.json").write_text('{"job_id": "12"}')
    state.refresh({})
    assert state.live([task("train")], {"12": KnownJob("12", "PENDING")}) == {"train": "12"}


@given(st.lists(st.tuples(WORDS, st.none() | st.from_regex(r"\d{1,4}", fullmatch=True)), max_size=4))
def test_the_state_comes_back_as_it_was(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("pipeline")
    state = PipelineState("key", "run", "sqlite:///x", [task("train")])
    state.sent = [Sent(word, (word,), (digest_of(word),), "whole", job) for word, job in entries]
    state.write(folder)
    assert PipelineState.read(folder) == state


def test_a_state_that_cannot_be_read_is_no_empty_one(tmp_path):
    assert PipelineState.read(tmp_path) == PipelineState()
    (tmp_path / "pipeline.json").write_text("{")
    with pytest.raises(HvcError, match="outputs stay"):
        PipelineState.read(tmp_path)
    (tmp_path / "pipeline.json").write_text('{"version": 99}')
    with pytest.raises(HvcError, match="another version"):
        PipelineState.read(tmp_path)


def test_a_report_counts_for_these_tasks_only(tmp_path):
    report = report_task([task("train")], tmp_path, None, "cpu.yaml")
    assert not is_reported(report)
    (tmp_path / "report.json").write_text(json.dumps({"digest": report.digest, "complete": True}))
    assert is_reported(report)
    assert not is_reported(report_task([task("train", digest="other")], tmp_path, None, "cpu.yaml"))
