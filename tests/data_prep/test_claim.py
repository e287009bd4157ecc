"""One writer at a time on an object store, from any machine."""

import json
import subprocess
import sys
import threading
import time

import pytest

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep import claim
from hvc.data_prep.claim import Claim, Holder, claimed
from hvc.data_prep.lock import BusyError, TakenOverError, Turn

NAME = "claim.json"

HOLD = """
import sys
from hvc.base.storage import open_store
from hvc.data_prep.claim import claimed
with claimed(open_store(sys.argv[1]), "claim.json", "claim"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.services)])
def store(request, tmp_path):
    """Any store will do; the real place of claims is S3."""
    if request.param == "folder":
        return open_store(tmp_path)
    return open_store(request.getfixturevalue("s3_env").bucket("claims") + "/prefix")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(claim, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(claim, "_SETTLE_SECONDS", 0.1)


def hold(store):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, store.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def write(store, **changes):
    """A claim that somebody else made."""
    holder = Holder.here().model_copy(update={"host": "far", "machine": "far 1 2", **changes})
    store.write(NAME, json.dumps(holder.model_dump()).encode())
    return holder


def test_the_second_is_told_who_holds_it_until_he_is_through(store):
    first = hold(store)
    with pytest.raises(BusyError, match=rf"another run writes here \(process {first.pid} on "):
        Claim(store, NAME).take()
    first.communicate()
    assert list(store.names()) == []
    with claimed(store, NAME, "claim"):
        assert list(store.names()) == [NAME]
    assert list(store.names()) == []


def test_a_killed_one_holds_nobody_up(store, caplog):
    first = hold(store)
    first.kill()
    first.communicate()
    start = time.monotonic()
    with claimed(store, NAME, "claim"):
        assert time.monotonic() - start < claim.PATIENCE_SECONDS / 4
    assert f"taking over from process {first.pid}" in caplog.text


def test_another_process_of_the_same_number_is_not_the_holder(store, quick):
    mine = Holder.here()
    write(store, machine=mine.machine, pid=mine.pid, started="1")
    with claimed(store, NAME, "claim"):
        pass


def test_far_away_and_silent_it_is_taken_over_after_watching(store, quick, caplog):
    write(store)
    start = time.monotonic()
    with claimed(store, NAME, "claim") as mine:
        assert time.monotonic() - start >= 1.0
        mine.check()
    assert "watching for 1 s" in caplog.text
    assert "taking over from process" in caplog.text


def test_far_away_and_alive_it_stays(store, quick):
    holder = write(store)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.1):
            write(store, token=holder.token, beat=time.monotonic_ns())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(BusyError, match="on far"):
            Claim(store, NAME).take()
    finally:
        ended.set()
        thread.join()


def test_damaged_it_is_watched_like_one_from_far_away(store, quick):
    store.write(NAME, b"{")
    with claimed(store, NAME, "claim"):
        pass


def test_it_beats(store, quick):
    with claimed(store, NAME, "claim"):
        seen = set()
        deadline = time.monotonic() + 10
        while len(seen) < 4 and time.monotonic() < deadline:
            seen.add(json.loads(store.read(NAME))["beat"])
        assert len(seen) >= 4


def test_who_was_taken_over_ends_and_leaves_the_new_claim(store, quick, monkeypatch):
    monkeypatch.setattr(claim, "BEAT_SECONDS", 1.0)
    with claimed(store, NAME, "claim") as mine:
        mine.check()
        other = write(store)
        with pytest.raises(HvcError, match=r"taken over by process .* on far"):
            mine.check()
        time.sleep(1.3)
    assert json.loads(store.read(NAME))["token"] == other.token, "its beat wrote over the new claim"


def test_who_was_taken_over_notices_by_the_beat(store, quick):
    with claimed(store, NAME, "claim") as mine:
        store.delete(NAME)
        time.sleep(0.5)
        store.write(NAME, json.dumps(mine._me.model_dump()).encode())  # too late
        with pytest.raises(HvcError, match="taken over"):
            mine.check()


def test_a_rival_keeps_it_away_and_is_left_alone(store):
    with claimed(store, "claim-part-1.json", rivals="claim.json"):
        with pytest.raises(BusyError), claimed(store, "claim.json", rivals="claim"):
            raise AssertionError("not to be reached")
        with claimed(store, "claim-part-2.json", rivals="claim.json"):
            assert list(store.names()) == ["claim-part-1.json", "claim-part-2.json"]
    with claimed(store, "claim.json", rivals="claim"):
        with pytest.raises(BusyError), claimed(store, "claim-part-1.json", rivals="claim.json"):
            raise AssertionError("not to be reached")
        assert list(store.names()) == ["claim.json"]


def test_of_many_at_once_one_wins(store, quick):
    write(store)  # a dead one, so that all of them take over
    held, refused = [], []
    barrier = threading.Barrier(6)

    def attempt():
        mine = Claim(store, NAME)
        barrier.wait()
        try:
            mine.take()
        except BusyError as error:
            refused.append(error)
        else:
            held.append(mine)

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)
    held[0].check()
    held[0].release()


def test_a_later_attempt_takes_over_from_one_that_lives(store, quick):
    first, second = Turn("job 7", 1), Turn("job 7", 2)
    with claimed(store, NAME, "claim", first) as earlier:
        with claimed(store, NAME, "claim", second) as later:
            with pytest.raises(TakenOverError):
                earlier.check()
            # Frozen between looking and writing, the earlier one gives its sign of life now.
            store.write(NAME, json.dumps(earlier._me.model_dump()).encode())
            later.check()
            with pytest.raises(BusyError):
                Claim(store, NAME, first).take()
            with pytest.raises(BusyError):
                Claim(store, NAME, Turn("job 8", 3)).take()
        assert not store.exists(NAME)
