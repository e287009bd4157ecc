"""One run over all attempts, in a database: what is recorded, once, and found again."""

import json
import logging
import math
import threading
import time
from pathlib import Path

import psutil
import pytest
from checkpoint_data import write
from PIL import Image
from tracked_runs import (
    assert_exactly_the_journal,
    at_server,
    config_of,
    in_journal,
    track,
    values_at,
    wait_until,
)

from hvc.base.errors import UsageError
from hvc.base.stage import Outcome, Provenance
from hvc.pretrain.checkpoints.checkpoint import open_checkpoint
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.tracking import tracker as tracking
from hvc.pretrain.tracking.attempt import attempt_line
from hvc.pretrain.tracking.journal import JOURNAL, Journal
from hvc.pretrain.tracking.mlflow_client import client_of, connect
from hvc.pretrain.tracking.provenance_facts import all_facts, code_sha256
from hvc.pretrain.tracking.run_note import NOTE, RunNote
from hvc.pretrain.tracking.sender import LOCK, pause_after
from hvc.pretrain.tracking.sync import sync
from hvc.pretrain.tracking.system_figures import system_figures
from hvc.pretrain.tracking.tracker import resumed_from, settle

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for all; every test has an output folder, a run and a model of its own."""
    address = f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"
    connect(address)  # making it takes longer than a stopped run may wait
    return address


@pytest.fixture
def folder(tmp_path, request):
    return tmp_path / request.node.name.replace("[", "-").replace("]", "")[:40]


def run_steps(tracker, first: int, last: int, outcome: Outcome | None = Outcome.STOPPED) -> str:
    for step in range(first, last + 1):
        tracker.metrics(step, values_at(step))
    tracker.finish(outcome)
    return tracker.run_id


def test_one_run_over_all_attempts_without_gap_or_double(folder, uri):
    first = run_steps(track(folder, uri), 1, 30, None)
    second = run_steps(track(folder, uri), 21, 50)  # from an older checkpoint
    third = run_steps(track(folder, uri), 41, 60, Outcome.DONE)
    assert first == second == third
    assert_exactly_the_journal(folder, uri)
    assert [step for step, _, _ in in_journal(folder)["train/loss"]] == list(range(1, 61))
    run = client_of(uri).get_run(first)
    assert run.info.status == "FINISHED"
    assert run.data.tags["hvc.attempt"] == "3"
    outcomes = [run.data.tags[f"hvc.attempt.{number}.outcome"] for number in (1, 2, 3)]
    assert outcomes == ["failed", "stopped", "done"]


def test_what_is_recorded_of_a_run(folder, uri):
    config = config_of(folder, uri)
    data = load_data(config)
    provenance = Provenance(labels={"slurm_job_id": "17", "odd key!": "x"})
    line = attempt_line(config, data, provenance, 2, all_facts())
    assert line["tags"]["hvc.attempt.2.slurm_job_id"] == "17"
    assert line["tags"]["hvc.attempt.2.odd_key_"] == "x"
    run_id = run_steps(track(folder, uri), 1, 3, Outcome.DONE)
    client = client_of(uri)
    run = client.get_run(run_id)
    assert run.data.params["views.size"] == "256"
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.digest == data.sources[0].manifest.digest[:32]
    assert json.loads(used.dataset.source)["digest"] == data.digest
    assert {"code.sha256", "version.torch", "hardware.cores", "hvc.total_steps"} <= run.data.tags.keys()
    assert f"/runs/{run_id}/" in run.data.tags["mlflow.note.content"]
    assert "recipe.yaml" in {item.path for item in client.list_artifacts(run_id)}
    client.set_tag(run_id, "mlflow.note.content", "mine")
    run_steps(track(folder, uri), 4, 5, Outcome.DONE)
    assert client.get_run(run_id).data.tags["mlflow.note.content"] == "mine"


def test_what_changed_between_attempts_is_said_and_refused_by_nobody(folder, uri, caplog):
    run_steps(track(folder, uri), 1, 2)
    journal = folder / JOURNAL
    text = journal.read_text()
    code = json.loads(next(line for line in text.splitlines() if '"attempt"' in line))["code"]
    journal.write_text(text.replace(code, "0" * 64))  # as if other code had run
    run_id = run_steps(track(folder, uri, log_every=7), 3, 4)
    run = client_of(uri).get_run(run_id)
    assert run.data.params["log_every"] == "10"
    assert run.data.tags["hvc.attempt.2.changed"] == "log_every: 10 -> 7"
    assert run.data.tags["hvc.code_drift"].startswith("attempt 1: 000000000000, attempt 2: ")
    assert "the code has changed" in caplog.text


def test_everything_sent_again_changes_nothing(folder, uri):
    tracker = track(folder, uri, tracking={"upload_encoder": "all"})
    tracker.checkpoint(write(str(folder / "checkpoints"), 10))
    run_id = run_steps(tracker, 1, 30, Outcome.DONE)
    client = client_of(uri)
    before = client.get_run(run_id).to_dictionary()
    versions = [version.version for version in client.search_model_versions(f"name = '{folder.name}'")]
    note = RunNote.read(folder)
    for cursor in (0, 33, note.cursor // 2, 10**12):  # none of them but the first is at a line's end
        note.with_(cursor=cursor).write(folder)
        (done,) = sync([folder])
        assert (done.problem, done.waiting, done.run_id) == ("", 0, run_id)
        assert done.sent > 10
        assert_exactly_the_journal(folder, uri)
    after = client.get_run(run_id).to_dictionary()
    assert after == before
    assert versions == [item.version for item in client.search_model_versions(f"name = '{folder.name}'")]


def test_a_killed_run_without_its_note_is_found_by_its_key(folder, uri):
    run_id = run_steps(track(folder, uri), 1, 5)
    (folder / NOTE).write_text('{"run_id": "ab')
    assert run_steps(track(folder, uri), 6, 9) == run_id
    assert_exactly_the_journal(folder, uri)


def test_a_lost_folder_goes_on_in_the_same_run(folder, uri, tmp_path):
    tracker = track(folder, uri)
    state = {}
    for step in range(1, 31):
        tracker.metrics(step, values_at(step))
    tracker.finish(Outcome.STOPPED)
    state = tracker.state()
    folder.rename(tmp_path / "lost")
    assert run_steps(track(folder, uri, resumed=state), 21, 50, Outcome.DONE) == state["run_id"]
    history = at_server(uri, state["run_id"])
    for name in values_at(1):
        assert [step for step, _, _ in history[name]] == list(range(1, 51)), name
    run = client_of(uri).get_run(state["run_id"])
    assert run.data.tags["hvc.attempt"] == "2"
    assert run.data.tags["hvc.attempt.1.outcome"] == "stopped"


def test_a_deleted_run_is_replaced_by_a_new_one_with_everything(folder, uri, caplog):
    old = run_steps(track(folder, uri), 1, 5)
    client_of(uri).delete_run(old)
    new = run_steps(track(folder, uri), 6, 9)
    assert new != old
    assert_exactly_the_journal(folder, uri, new)
    assert "is gone" in caplog.text


def test_a_run_deleted_while_it_goes_on(folder, uri):
    tracker = track(folder, uri)
    tracker.metrics(1, values_at(1))
    deadline = time.monotonic() + 30
    while tracker.run_id is None and time.monotonic() < deadline:
        time.sleep(0.05)
    old = tracker.run_id
    client_of(uri).delete_run(old)
    new = run_steps(tracker, 2, 9)
    assert new != old
    assert_exactly_the_journal(folder, uri, new)


def test_a_moved_server_gets_the_whole_journal(folder, uri, tmp_path, caplog):
    run_steps(track(folder, uri), 1, 5)
    there = f"sqlite:///{tmp_path}/other.db"
    connect(there)
    run_steps(track(folder, there), 6, 9)
    assert_exactly_the_journal(folder, there)
    assert "tracking moved" in caplog.text
    run_steps(track(folder, uri), 10, 12, Outcome.DONE)
    assert_exactly_the_journal(folder, uri)


def test_aliases_pin_their_checkpoints_and_newest_only_moves_on(folder, uri):
    client = client_of(uri)
    tracker = track(folder, uri)
    assert tracker.pinned_steps() in (set(), None)
    for step in (10, 20, 30):
        tracker.checkpoint(write(str(folder / "checkpoints"), step))
        tracker.metrics(step, values_at(step))
    tracker.checkpoint(open_checkpoint(folder / "checkpoints" / "step-00000030"), last=True)
    tracker.finish(Outcome.DONE)
    versions = client.search_model_versions(f"name = '{folder.name}'")
    steps = {version.tags["hvc.step"]: version.version for version in versions}
    assert len(versions) == len(steps) == 3
    client.set_registered_model_alias(folder.name, "best", steps["10"])
    assert tracker.pinned_steps() == {10, 30}
    names = {item.path for item in client.list_artifacts(tracker.run_id, "checkpoints")}
    assert names == {f"checkpoints/step-{step:08d}.json" for step in (10, 20, 30)}
    assert [item.path for item in client.list_artifacts(tracker.run_id, "encoder")] == [
        "encoder/encoder.safetensors"
    ]
    assert not (folder / "outbox").exists()
    # A later run under the same name takes the alias; the first one's replay does not take it back.
    other = folder.parent / "other" / folder.name
    later = track(other, uri)
    later.checkpoint(write(str(other / "checkpoints"), 5))
    later.finish(Outcome.DONE)
    RunNote.read(folder).with_(cursor=0).write(folder)
    assert [done.problem for done in sync([folder])] == [""]
    newest = client.get_model_version_by_alias(folder.name, "newest")
    assert (newest.run_id, newest.tags["hvc.step"]) == (later.run_id, "5")


def test_pictures_are_drawn_elsewhere_and_a_bad_one_is_a_warning(folder, uri, caplog):
    tracker = track(folder, uri)
    threads, asked = [], threading.Event()

    def draw() -> Image.Image:
        threads.append(threading.current_thread())
        assert asked.wait(60), "who asked for the picture waits for it"
        return Image.new("RGB", (8, 8), "red")

    tracker.picture("curves", 10, draw)
    tracker.picture("views", 10, lambda: 1 / 0)
    asked.set()
    run_steps(tracker, 1, 3, Outcome.DONE)
    assert threads[0] is not threading.main_thread()
    assert Image.open(folder / "pictures" / "curves-00000010.png").size == (8, 8)
    names = [item.path for item in client_of(uri).list_artifacts(tracker.run_id, "pictures")]
    assert names == ["pictures/curves-00000010.png"]
    assert "picture views of step 10 was not made: ZeroDivisionError" in caplog.text
    again = track(folder, uri)
    again.picture("curves", 10, draw)
    again.finish(Outcome.DONE)
    assert len(threads) == 1


def test_a_finished_run_that_is_started_again(folder, uri):
    config = config_of(folder, uri)
    run_id = run_steps(track(folder, uri), 1, 5, Outcome.DONE)
    found = write(str(folder / "checkpoints"), 1000)  # killed before it was recorded
    settle(config, load_data(config), Provenance(), found)
    names = [item.path for item in client_of(uri).list_artifacts(run_id, "checkpoints")]
    assert names == ["checkpoints/step-00001000.json"]
    settled = (folder / JOURNAL).read_bytes()
    settle(config, load_data(config), Provenance(), found)
    assert (folder / JOURNAL).read_bytes() == settled
    assert RunNote.read(folder).closed
    assert client_of(uri).get_run(run_id).data.tags["hvc.attempt"] == "1"


def test_a_line_that_mlflow_never_takes_stops_no_other(folder, uri, caplog):
    tracker = track(folder, uri)
    tracker.metrics(1, {"fine": 1.0})
    tracker.metrics(2, {"not a name?": 1.0, "x" * 300: 2.0})
    tracker.journal.append("artifact", file="gone.txt", folder="files")
    tracker.metrics(3, {"fine": 3.0})
    tracker.finish(Outcome.DONE)
    assert [step for step, _, _ in at_server(uri, tracker.run_id)["fine"]] == [1, 3]
    assert "MLflow refuses" in caplog.text
    assert "gone.txt is gone" in caplog.text


def test_files_that_cannot_be_stored_let_metrics_go_first(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(tracking.FINISH_SECONDS, Outcome.DONE, 12.0)
    here = f"sqlite:///{tmp_path}/files.db"
    connect(here)
    (tmp_path / "mlartifacts").write_text("in the way")
    tracker = track(folder, here)
    tracker.checkpoint(write(str(folder / "checkpoints"), 5))
    run_id = run_steps(tracker, 1, 30, Outcome.DONE)
    assert_exactly_the_journal(folder, here)
    assert "others go first" in caplog.text
    assert "records wait for MLflow" in caplog.text
    note = RunNote.read(folder)
    assert len(note.postponed) == 2  # the attempt with its recipe, the checkpoint with its record
    (tmp_path / "mlartifacts").unlink()
    (done,) = sync([folder])
    assert (done.problem, done.waiting, done.sent) == ("", 0, 2)
    names = {item.path for item in client_of(here).list_artifacts(run_id)}
    assert names == {"recipe.yaml", "checkpoints"}


def test_files_that_cannot_be_stored_do_not_slow_metrics(folder, tmp_path):
    here = f"sqlite:///{tmp_path}/pace.db"
    connect(here)
    tracker = track(folder, here)
    tracker.metrics(1, {"fine": 1.0})
    wait_until(lambda: tracker.run_id and at_server(here, tracker.run_id).get("fine"))
    (tmp_path / "mlartifacts").rename(tmp_path / "aside")
    (tmp_path / "mlartifacts").write_text("in the way")
    begin = time.monotonic()
    for step in range(2, 12):
        (folder / f"{step}.txt").write_text("a file")
        tracker.journal.append("artifact", file=f"{step}.txt", folder="files")
        tracker.metrics(step, {"fine": float(step)})
    wait_until(lambda: len(at_server(here, tracker.run_id)["fine"]) == 11)
    assert time.monotonic() - begin < 10, "every file was tried several times first"
    (tmp_path / "mlartifacts").unlink()
    (tmp_path / "aside").rename(tmp_path / "mlartifacts")
    tracker.finish(Outcome.DONE)
    names = [item.path for item in client_of(here).list_artifacts(tracker.run_id, "files")]
    assert len(names) == 10
    note = RunNote.read(folder)
    assert (note.closed, note.postponed) == (True, ())


def test_an_attempt_that_is_told_late_does_not_run_again(folder, tmp_path):
    """Its recipe cannot be stored at first; the rest of it, its end too, gets there before."""
    here = f"sqlite:///{tmp_path}/late.db"
    connect(here)
    (tmp_path / "mlartifacts").write_text("in the way")
    run_id = run_steps(track(folder, here), 1, 3, Outcome.DONE)
    (tmp_path / "mlartifacts").unlink()
    (done,) = sync([folder])
    assert (done.problem, done.waiting) == ("", 0)
    assert client_of(here).get_run(run_id).info.status == "FINISHED"


def test_sending_goes_on_once_the_lock_can_be_made(folder, uri, caplog):
    """A full disk has no room for it; here a folder is in its place."""
    (folder / LOCK).mkdir(parents=True)
    tracker = track(folder, uri)
    wait_until(lambda: f"cannot write {folder / LOCK}" in caplog.text)
    (folder / LOCK).rmdir()
    wait_until(lambda: tracker.run_id is not None, 10)
    run_steps(tracker, 1, 3, Outcome.DONE)
    assert_exactly_the_journal(folder, uri)


def test_aliases_are_unknown_while_the_run_is_not_found_that_a_server_may_know(folder, uri, monkeypatch):
    monkeypatch.setitem(tracking.FINISH_SECONDS, Outcome.STOPPED, 0.1)
    dead = "http://127.0.0.1:9"
    new = track(folder.with_name("new"), dead)
    assert new.pinned_steps() == set(), "no server ever knew it"
    new.finish(Outcome.STOPPED)
    again = track(folder.with_name("new"), dead)
    assert again.pinned_steps() == set()
    again.finish(Outcome.STOPPED)

    run_steps(track(folder, uri), 1, 3, Outcome.DONE)
    for _ in range(2):  # its note says at the second start that it is about the dead server
        moved = track(folder, dead)
        assert moved.pinned_steps() is None
        moved.finish(Outcome.STOPPED)
    (folder / NOTE).unlink()
    lost = track(folder, dead)
    assert lost.pinned_steps() is None
    state = lost.state()
    lost.finish(Outcome.STOPPED)
    elsewhere = track(folder.with_name("elsewhere"), dead, resumed=state)
    assert elsewhere.pinned_steps() is None
    elsewhere.finish(Outcome.STOPPED)


def test_a_finished_run_is_not_changed_from_another_folder(folder, uri, tmp_path, caplog):
    place = str(tmp_path / "checkpoints")
    tracker = track(folder, uri, checkpoint={"address": place})
    found = write(place, 1000, tracking=tracker.state())
    tracker.checkpoint(found, last=True)
    run_id = run_steps(tracker, 1, 5, Outcome.DONE)
    before = client_of(uri).get_run(run_id).to_dictionary()
    for name in ("nothing", "another's"):
        other = config_of(folder.with_name(name), uri, checkpoint={"address": place})
        if name == "another's":
            run_steps(track(other.folder, uri), 1, 2)
        files = sorted(other.folder.rglob("*"))
        settle(other, load_data(other), Provenance(attempt=7), found)
        assert f"{other.folder} is not its output folder" in caplog.text
        assert sorted(other.folder.rglob("*")) == files
    assert client_of(uri).get_run(run_id).to_dictionary() == before
    own = config_of(folder, uri, checkpoint={"address": place})
    caplog.clear()
    settle(own, load_data(own), Provenance(), found)
    assert "not its output folder" not in caplog.text


def test_other_code_than_the_checkpoints_is_said_where_no_attempt_tells(folder, uri, tmp_path, caplog):
    code = {"code.sha256": "0" * 64}
    found = write(str(tmp_path / "checkpoints"), 10, code=code)
    tracker = track(folder, uri, resumed=resumed_from(found))
    run_id = run_steps(tracker, 11, 12)
    assert "the code has changed since the checkpoint was written" in caplog.text
    assert (
        client_of(uri).get_run(run_id).data.tags["hvc.code_drift"].startswith("step 10: 000000000000, now:")
    )
    caplog.clear()
    same = write(str(tmp_path / "checkpoints"), 20, code={"code.sha256": code_sha256()})
    run_steps(track(folder.with_name("same"), uri, resumed=resumed_from(same)), 21, 22)
    assert "the code has changed" not in caplog.text


def test_no_password_is_kept_or_said(folder, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9/")
    data = config_of(folder, "sqlite:///unused")
    config = TrainConfig.parse(data.resolved() | {"tracking": {"experiment": "tracked"}})
    from hvc.pretrain.tracking.tracker import Tracker

    tracker = Tracker(config, load_data(config), Provenance())
    run_steps(tracker, 1, 3)
    kept = "".join(path.read_text() for path in folder.iterdir() if path.is_file())
    assert "127.0.0.1:9" in kept
    assert "127.0.0.1:9" in caplog.text
    for text in (kept, caplog.text, json.dumps(tracker.state())):
        assert "hunter2" not in text
    (done,) = sync([folder])
    assert done.waiting > 0
    assert "hunter2" not in done.text()
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_PASSWORD") as error:
        TrainConfig.parse({"data": "x", "tracking": {"uri": "https://me:hunter2@host/"}})
    assert "hunter2" not in str(error.value)


def test_a_run_of_an_older_version_goes_on(folder, uri):
    """Its folder has a note but no journal."""
    run_id = run_steps(track(folder, uri), 1, 5)
    (folder / JOURNAL).unlink()
    (folder / NOTE).write_text(
        json.dumps({"run_id": run_id, "tracking_uri": uri, "experiment": "tracked", "closed": False})
    )
    assert run_steps(track(folder, uri), 4, 9) == run_id
    assert [step for step, _, _ in at_server(uri, run_id)["train/loss"]] == list(range(1, 10))


def test_a_run_can_be_shown_below_another_one(folder, uri):
    run_id = run_steps(track(folder, uri, tracking={"parent": "0123"}), 1, 2)
    assert client_of(uri).get_run(run_id).data.tags["mlflow.parentRunId"] == "0123"
    alone = run_steps(track(folder.with_name("alone"), uri), 1, 2)
    assert "mlflow.parentRunId" not in client_of(uri).get_run(alone).data.tags


def test_figures_of_a_node():
    figures = system_figures(3, Path("/dev/shm/not/there/yet"))
    assert {name.rpartition("/")[0] for name in figures} == {"system/node-3"}
    assert all(math.isfinite(value) and value >= 0 for value in figures.values())
    free = figures["system/node-3/disk_available_megabytes"]
    assert free == pytest.approx(psutil.disk_usage("/dev/shm").free / 1e6, rel=0.1)
    assert 0 < figures["system/node-3/system_memory_usage_percentage"] <= 100


def test_pauses_grow_to_a_minute():
    assert [pause_after(failures) for failures in (1, 2, 3, 7, 100)] == [1, 2, 4, 60, 60]


def test_two_trackers_of_one_folder_do_not_mix_lines(tmp_path):
    """Threads of one process: every line is whole."""
    journal = Journal(tmp_path / "j")
    threads = [
        threading.Thread(target=lambda: [journal.append("x", n=n) for n in range(500)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal_lines := (tmp_path / "j").read_text().splitlines()) == 2000
    assert all(json.loads(line)["kind"] == "x" for line in journal_lines)
