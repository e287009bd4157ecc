"""How far a run is, read off real journals: the same whatever their length, and without reading all."""

import time

import pytest
from tracked_runs import config_of, values_at

from hvc.pretrain.tracking import run_progress
from hvc.pretrain.tracking.journal import JOURNAL, Journal
from hvc.pretrain.tracking.run_note import RunNote
from hvc.pretrain.tracking.run_progress import progress_of
from hvc.pretrain.tracking.sync import sync


def write_journal(folder, steps, *, total=1000, note=0, ends=(), name="long"):
    """A journal as training writes it: head, attempt, a record every tenth step."""
    journal = Journal(folder / JOURNAL)
    journal.append("journal", version=1, run_key="0" * 32, adopted=False)
    tags = {"hvc.total_steps": str(total)}
    journal.append(
        "attempt", number=1, name=name, experiment="hvc", tags=tags, params={}, inputs=[], code="c"
    )
    for step in range(10, steps + 1, 10):
        speed = {"perf/images_per_second": 100.0 + step, "perf/step_seconds": 0.5}
        journal.append("metrics", step=step, values=values_at(step) | speed)
    if note:
        journal.append("note", text="x" * note)
    for status in ends:
        journal.append("state", status=status, outcome="stopped", attempt=1)
    journal.close()


@pytest.mark.parametrize("steps", [10, 50, 30_000])
def test_the_end_of_a_journal_says_how_far_a_run_is(tmp_path, steps):
    write_journal(tmp_path, steps, total=40_000)
    RunNote("http://tracking:5000", "hvc", "0" * 32, "abcdef").write(tmp_path)
    found = progress_of(tmp_path)
    assert (found.name, found.step, found.total_steps) == ("long", steps, 40_000)
    assert found.images_per_second == 100 + steps
    assert found.loss == -steps
    assert found.seconds_left == (40_000 - steps) * 0.5
    assert found.status is None
    assert abs(found.heard - time.time()) < 60
    assert found.link == "http://tracking:5000/#/runs/abcdef"


def test_of_a_long_journal_only_the_ends_are_read(tmp_path, monkeypatch):
    write_journal(tmp_path, 100_000)
    read = []
    real = run_progress.read_lines

    def counted(path, start=0):
        for line in real(path, start):
            read.append(line)
            yield line

    monkeypatch.setattr(run_progress, "read_lines", counted)
    assert progress_of(tmp_path).step == 100_000
    assert len(read) < 500


def test_records_before_a_long_note_are_found(tmp_path):
    write_journal(tmp_path, 200, note=200_000)
    assert progress_of(tmp_path).step == 200


def test_a_run_that_has_stopped_has_no_time_left_and_one_that_goes_on_has(tmp_path):
    write_journal(tmp_path, 100, ends=["SCHEDULED"])
    stopped = progress_of(tmp_path)
    assert (stopped.status, stopped.seconds_left) == ("SCHEDULED", None)
    journal = Journal(tmp_path / JOURNAL)
    tags = {"hvc.total_steps": "2000"}
    journal.append("attempt", number=2, name="long", experiment="hvc", tags=tags, params={}, code="c")
    journal.close()
    again = progress_of(tmp_path)
    assert (again.status, again.total_steps) == (None, 2000)
    assert again.seconds_left == 1900 * 0.5


def test_without_a_journal_nothing_is_said(tmp_path):
    assert progress_of(tmp_path) is None
    (tmp_path / JOURNAL).write_text('{"kind": "jour')
    assert progress_of(tmp_path) is None


def test_a_run_that_the_tracker_began_is_read(tmp_path):
    """The journal as the tracker itself begins it; a database has no page."""
    from tracked_runs import track

    folder, uri = tmp_path / "run", f"sqlite:///{tmp_path}/mlflow.db"
    tracker = track(folder, uri)
    tracker.metrics(10, values_at(10))
    tracker.finish(None)
    end = time.monotonic() + 120
    while (found := progress_of(folder)).run_id is None:  # on a busy machine the database comes later
        assert time.monotonic() < end
        list(sync([folder]))
        time.sleep(0.5)
    assert (found.name, found.step, found.total_steps) == ("tracked", 10, 1000)
    assert found.status == "FAILED"
    assert found.tracking_uri == uri
    assert found.link == f"runs:/{found.run_id}"
    assert config_of(folder, uri).steps == found.total_steps


def test_records_of_many_nodes_are_longer_than_what_is_read_at_first(tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    journal.append("journal", version=1, run_key="0" * 32, adopted=False)
    tags = {"hvc.total_steps": "1000"}
    journal.append("attempt", number=1, name="wide", experiment="hvc", tags=tags, params={}, code="c")
    wide = {f"system/node-{node}/figure-{n}": 1.5 for node in range(64) for n in range(39)}
    for step in (10, 20, 30):
        journal.append("metrics", step=step, values=values_at(step) | wide)
    journal.close()
    assert (tmp_path / JOURNAL).stat().st_size > 200_000
    assert progress_of(tmp_path).step == 30
