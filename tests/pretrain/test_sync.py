"""`hvc sync`: after kills, beside a live run, at damage; the server ends with exactly the journal."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mutation import quick_and_soak
from running import run_hvc
from tracked_runs import assert_exactly_the_journal, in_journal, track, values_at, wait_until

from hvc.base.errors import UsageError
from hvc.base.stage import Outcome
from hvc.data_prep.lock import sole_writer
from hvc.pretrain.tracking.journal import JOURNAL, Journal
from hvc.pretrain.tracking.mlflow_client import connect
from hvc.pretrain.tracking.run_note import NOTE, RunNote
from hvc.pretrain.tracking.sender import LOCK
from hvc.pretrain.tracking.sync import folders_with_journal, sync
from hvc.pretrain.tracking.tracker import FINISH_SECONDS

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]


def kill_often(folder: Path, uri: str, seed: int, count: int) -> None:
    program = TESTS / "tracking_kills.py"
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    arguments = [str(program), str(folder), uri, str(seed), str(count)]
    subprocess.run([sys.executable, *arguments], env=environment, check=True, timeout=120 + 30 * count)


@quick_and_soak(quick=10, soak=200)
@pytest.mark.parametrize("kind", ["server", "database"])
def test_killed_at_random_moments_while_sending(kind, count, tmp_path, request):
    if kind == "server":
        uri = request.getfixturevalue("mlflow_server").uri
    else:
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        connect(uri)
    folder = tmp_path / f"killed-{kind}"
    kill_often(folder, uri, seed=1, count=count)
    (done,) = sync([folder])
    assert (done.problem, done.waiting) == ("", 0)
    assert_exactly_the_journal(folder, uri)
    steps = [step for step, _, _ in in_journal(folder)["train/loss"]]
    assert steps == list(range(1, len(steps) + 1)), "a gap or a double in the journal itself"
    assert len(steps) > 20


def test_a_run_killed_before_its_first_attempt_has_nothing_to_send(tmp_path, uri):
    journal = Journal(tmp_path / JOURNAL)
    journal.append("journal", version=1, run_key="0" * 32, adopted=False)
    journal.close()
    (done,) = sync([tmp_path], uri)
    assert not done.failed
    assert "nothing is recorded" in done.text()


def test_a_journal_that_cannot_be_read_keeps_no_other_from_being_sent(tmp_path, uri):
    (tmp_path / "bad" / JOURNAL).mkdir(parents=True)
    good = tmp_path / "good"
    track(good, uri).finish(None)
    bad, sent = sync([tmp_path / "bad", good], uri)
    assert bad.failed
    assert "cannot read" in bad.problem
    assert (sent.problem, sent.waiting) == ("", 0)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    address = f"sqlite:///{tmp_path_factory.mktemp('sync')}/mlflow.db"
    connect(address)
    return address


@pytest.fixture
def unsent(tmp_path, uri):
    """Folder of a run of 200 steps of which its server, then absent, knows nothing."""
    folder = tmp_path / "outputs" / "unsent"
    folder.parent.mkdir()
    tracker = track(folder, "http://127.0.0.1:9")
    for step in range(1, 201):
        tracker.metrics(step, values_at(step))
    tracker.finish(None)
    note = json.loads((folder / NOTE).read_text())
    (folder / NOTE).write_text(json.dumps(note | {"tracking_uri": uri}))
    return folder


def test_two_at_once_send_everything_once(unsent, uri):
    found = []
    threads = [threading.Thread(target=lambda: found.extend(sync([unsent]))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.busy for run in found) in ([False, True], [False, False])
    assert not [run.problem for run in found if run.failed]
    assert_exactly_the_journal(unsent, uri)


def test_a_folder_that_is_being_sent_is_left_alone_and_said(unsent, uri):
    with sole_writer(unsent / LOCK, "x"):
        told = run_hvc("sync", cwd=unsent.parents[1])
    assert told.returncode == 0, told.stderr
    assert "left alone" in told.stdout
    told = run_hvc("sync", cwd=unsent.parents[1])
    assert told.returncode == 0, told.stderr
    assert f"records sent to {uri}" in told.stdout
    assert_exactly_the_journal(unsent, uri)


def test_a_server_that_is_away_is_said_with_what_to_do(tmp_path):
    folder = tmp_path / "outputs" / "away"
    folder.parent.mkdir()
    tracker = track(folder, "http://127.0.0.1:9")
    begin = time.monotonic()
    wait_until(lambda: tracker._sender._failures)
    tracker.finish(Outcome.DONE)
    assert time.monotonic() - begin < FINISH_SECONDS[Outcome.DONE] / 2, "nobody waits for one never reached"
    told = run_hvc("sync", cwd=tmp_path)
    assert told.returncode == 1
    for words in ("http://127.0.0.1:9 does not take it (connection refused", "by --tracking-uri", "wait: "):
        assert words in told.stdout


def test_a_live_run_keeps_its_journal_to_itself(tmp_path, uri):
    folder = tmp_path / "live"
    tracker = track(folder, uri)
    tracker.metrics(1, values_at(1))
    wait_until(lambda: tracker.run_id is not None)
    (done,) = sync([folder])
    assert done.busy
    assert not done.failed
    tracker.finish(Outcome.DONE)
    (done,) = sync([folder])
    assert (done.sent, done.waiting, done.problem) == (0, 0, "")
    assert_exactly_the_journal(folder, uri)


def test_all_of_it_goes_to_another_server_on_request(unsent, uri, tmp_path):
    there = f"sqlite:///{tmp_path}/there.db"
    told = run_hvc("sync", str(unsent), "--tracking-uri", there, "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    (run,) = json.loads(told.stdout)["runs"]
    assert run["waiting"] == 0
    assert_exactly_the_journal(unsent, there)


@pytest.mark.parametrize(
    "tail", [b"\x00" * 4096, b'{"kind":"metrics","time":1,"st', b'{"kind": 3}\n\xff\xfe\n']
)
def test_a_damaged_tail_costs_only_itself(unsent, uri, tail):
    whole = in_journal(unsent)
    with (unsent / JOURNAL).open("ab") as file:
        file.write(tail)
    (done,) = sync([unsent])
    assert done.problem == ""
    assert_exactly_the_journal(unsent, uri)
    assert in_journal(unsent).keys() == whole.keys()
    assert len(in_journal(unsent)["train/loss"]) == 200


def test_a_journal_that_lost_its_end_doubles_nothing(tmp_path, uri):
    """The disk lost power: the server knows steps that the journal has lost; they are made again."""
    folder = tmp_path / "power"
    tracker = track(folder, uri)
    for step in range(1, 61):
        tracker.metrics(step, values_at(step))
    tracker.finish(None)
    data = (folder / JOURNAL).read_bytes()
    (folder / JOURNAL).write_bytes(data[: len(data) // 2])
    tracker = track(folder, uri)
    for step in range(1, 101):
        tracker.metrics(step, values_at(step))
    tracker.finish(Outcome.DONE)
    note = RunNote.read(folder)
    points = connect(uri).get_metric_history(note.run_id, "train/loss")
    assert sorted(point.step for point in points) == list(range(1, 101))


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(UsageError, match="give the output folder of a run"):
        folders_with_journal([tmp_path])
    assert folders_with_journal([], tmp_path) == []
    told = run_hvc("sync", cwd=tmp_path)
    assert told.returncode == 0
    assert "no runs below outputs/" in told.stdout
    (tmp_path / JOURNAL).write_text('{"kind":"note","time":1}\n')
    told = run_hvc("sync", str(tmp_path), cwd=tmp_path)
    assert told.returncode == 1
    assert "its beginning is damaged" in told.stdout
