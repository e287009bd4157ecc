"""What is left of an unfinished run, and what is cleared away."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep import progress
from hvc.data_prep.delivery import THREADS, in_threads
from hvc.data_prep.lock import BusyError, TakenOverError, Turn
from hvc.data_prep.manifest import FileRef, Shard
from hvc.data_prep.progress import Progress
from hvc.data_prep.writer import Rejected, ShardRecord


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "out")


def made(work, name="shard-000000", data=b"tar"):
    """A shard as a worker leaves it."""
    (work / f"{name}.tar").write_bytes(data)
    (work / f"{name}.idx").write_bytes(b"idx")
    digest = hashlib.sha256(data).hexdigest()
    index = FileRef(path=f"{name}.idx", sha256=hashlib.sha256(b"idx").hexdigest())
    shard = Shard(path=f"{name}.tar", bytes=len(data), sha256=digest, samples=1, index=index)
    return ShardRecord(name=name, shard=shard, rejects=())


def test_what_was_delivered_is_found_again_by_its_plan_only(store, tmp_path):
    bad = Rejected(path="a", reason="b")
    first = Progress(store, "plan")
    with first.alone(), first.work_folder() as work:
        record = made(work)
        first.deliver(record, work)
        empty = ShardRecord(name="shard-000001", shard=None, rejects=(bad,))
        first.deliver(empty, work)
        assert list(work.iterdir()) == []
    again = Progress(store, "plan")
    with again.alone():
        names = frozenset({"shard-000000", "shard-000001", "shard-000002"})
        assert again.finished(names) == {"shard-000000": record, "shard-000001": empty}
        assert again.finished(frozenset({"shard-000001"})) == {"shard-000001": empty}
    other = Progress(store, "another plan")
    with other.alone():
        assert other.finished(names) == {}
        assert not store.exists("shard-000000.tar")
        other.close()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "altered", "no index", "no record", "half a record"])
def test_what_is_damaged_does_not_count(store, tmp_path, damage):
    run = Progress(store, "plan")
    with run.alone(), run.work_folder() as work:
        run.deliver(made(work), work)
    out = tmp_path / "out"
    if damage == "no index":
        (out / "shard-000000.idx").unlink()
    elif damage == "no record":
        (out / ".progress/shard-000000.json").unlink()
    elif damage == "half a record":
        (out / ".progress/shard-000000.json").write_text('{"name"')
    else:
        (out / "shard-000000.tar").write_bytes(b"ta" if damage == "truncated" else b"tbr")
    with run.alone():
        assert run.finished(frozenset({"shard-000000"})) == {}


def test_killed_runs_leave_work_folders_that_the_next_one_removes(store, tmp_path):
    out = tmp_path / "out"
    for who in ("whole", "part-0", "part-1"):
        (out / f".progress/work-{who}-abc").mkdir(parents=True)
    with Progress(store, "plan", part=1).alone():
        left = sorted(path.name for path in (out / ".progress").glob("work-*"))
        # The first to come prepares the output, when nobody else can be at work.
        assert left == []
    (out / ".progress/work-part-0-abc").mkdir()
    (out / ".progress/work-part-1-abc").mkdir()
    with Progress(store, "plan", part=1).alone():
        assert [path.name for path in (out / ".progress").glob("work-*")] == ["work-part-0-abc"]
    with Progress(store, "plan").alone():
        assert list((out / ".progress").glob("work-*")) == []


def test_the_name_of_the_plan_goes_last(store, monkeypatch):
    """Killed while it clears up, a run leaves what says whose the rest is."""
    run = Progress(store, "plan")
    with run.alone(), run.work_folder() as work:
        run.deliver(made(work), work)
        run.keep_hashes(0, b"x")
    removed = []
    unlink = Path.unlink

    def watched(path, **options):
        removed.append(path.name)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", watched)
    with Progress(store, "another").alone():
        pass
    last = removed.index("plan.json")
    assert {"shard-000000.json", "hashes-000000", "shard-000000.tar"} <= set(removed[:last])


def test_hashes_are_kept_until_the_end(store):
    run = Progress(store, "plan")
    with run.alone():
        assert run.kept_hashes(3) is None
        run.keep_hashes(3, b"abc")
    with run.alone():
        assert run.kept_hashes(3) == b"abc"
        run.close()
        assert run.kept_hashes(3) is None


def test_a_run_whose_output_was_begun_anew_ends(store):
    run = Progress(store, "plan")
    with run.alone():
        run.still_ours()
        store.write(".progress/plan.json", json.dumps({"plan": "other"}).encode())
        with pytest.raises(HvcError, match="another run began anew"):
            run.still_ours()


def test_a_part_waits_for_the_one_that_prepares(store, monkeypatch):
    monkeypatch.setattr(progress, "PART_PATIENCE_SECONDS", 0.5)
    with Progress(store, "plan").alone():
        start = time.monotonic()
        with pytest.raises(BusyError), Progress(store, "plan", part=0).alone():
            raise AssertionError("not to be reached")
        assert time.monotonic() - start >= 0.5
    with (
        Progress(store, "plan", part=0).alone(),
        Progress(store, "plan", part=1).alone(),
        pytest.raises(BusyError),
        Progress(store, "other plan", part=2).alone(),
    ):
        raise AssertionError("not to be reached")


def test_everything_is_delivered_beside_the_work_and_not_too_much_waits():
    waiting, most, delivered = 0, 0, []

    def come():
        nonlocal waiting, most
        for number in range(30):
            waiting += 1
            most = max(most, waiting)
            yield number

    def deliver(number):
        nonlocal waiting
        time.sleep(0.01)
        delivered.append(number)
        waiting -= 1

    assert sorted(in_threads(deliver, come(), 5)) == sorted(delivered) == list(range(30))
    assert THREADS <= most <= 6


def test_an_error_on_the_way_ends_it():
    def deliver(number):
        if number == 3:
            raise HvcError("lost")

    taken = []
    with pytest.raises(HvcError, match="lost"):
        in_threads(deliver, (taken.append(number) or number for number in range(1000)), 4)
    assert len(taken) < 20


def test_folders_of_other_users_are_left_alone(store, tmp_path, monkeypatch):
    work = tmp_path / "out/.progress/work-whole-abc"
    work.mkdir(parents=True)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with Progress(store, "plan").alone():
        assert work.exists()


@pytest.mark.parametrize("part", [None, 1])
def test_an_attempt_that_was_taken_over_delivers_nothing(store, part):
    lost, later = [Progress(store, "plan", part, Turn("job 7", number)) for number in (1, 2)]
    with lost.alone(), lost.work_folder() as work:
        record = made(work)
        with later.alone():
            with pytest.raises(TakenOverError):
                lost.deliver(record, work)
            assert later.finished(frozenset({"shard-000000"})) == {}
            assert not store.exists("shard-000000.tar")
