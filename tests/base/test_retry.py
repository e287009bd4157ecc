"""Trying again: the schedule as a pure function, and the loop with real time."""

import logging
import multiprocessing
import pickle
import subprocess
import sys
import threading
import time
from itertools import repeat
from uuid import uuid4

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.retry import FIRST_PAUSE, LONGEST_PAUSE, Retrier, Verdict, pause
from hvc.base.store import StorageError

unit = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0, 1e4)


class BrokenError(Exception):
    pass


def passing(error):
    return Verdict(isinstance(error, BrokenError), False, str(error), "tryorrow")


def answered(error):
    return Verdict(True, True, str(error), "")


def failing(times, result="done"):
    left = [BrokenError("no line")] * times

    def operation():
        if left:
            raise left.pop()
        return result

    return operation


@given(st.integers(1, 10_000), seconds, seconds, unit)
def test_a_pause_is_bounded_and_ends_with_the_patience(failures, elapsed, patience, draw):
    length = pause(failures, elapsed, patience, draw)
    assert (length is None) == (elapsed >= patience)
    if length is not None:
        assert 0 <= length <= min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 20))
        assert elapsed + length <= patience * (1 + 1e-12)


@given(st.floats(0.5, 300), st.lists(unit, min_size=1, max_size=50), st.floats(0, 40))
def test_the_whole_wait_is_the_patience_and_the_attempts_are_few(patience, draws, attempt):
    elapsed, failures = attempt, 1
    for draw in (draw for group in repeat(draws) for draw in group):
        length = pause(failures, elapsed, patience, max(draw, 0.2))
        if length is None:
            break
        elapsed += length + attempt
        failures += 1
    assert patience <= elapsed <= patience * (1 + 1e-9) + attempt
    assert failures <= 12 + patience / (0.2 * LONGEST_PAUSE)


@given(st.integers(1, 30), unit, unit)
def test_the_pause_grows_with_failures_and_jitter(failures, low, high):
    low, high = sorted((low, high))
    assert pause(failures, 0, 1e9, low) <= pause(failures, 0, 1e9, high)
    assert pause(failures, 0, 1e9, low) <= pause(failures + 1, 0, 1e9, low)


def test_it_works_in_the_end_and_counts():
    retrier = Retrier(10, 10, uuid4().hex)
    assert retrier.call("read x", failing(3), passing) == "done"
    assert retrier.retries == 3
    assert pickle.loads(pickle.dumps(retrier)).retries == 0


def test_a_lasting_error_is_raised_at_once_as_it_is():
    retrier = Retrier(10, 10, uuid4().hex)
    with pytest.raises(KeyError):
        retrier.call("read x", lambda: {}["a"], passing)
    assert retrier.retries == 0


def test_the_last_error_names_attempts_time_reason_and_next_step():
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot read x: no line \(\d+ attempts in 1 s\); try"):
        Retrier(0.6, 100, uuid4().hex).call("read x", failing(1000), passing)
    assert 0.55 < time.monotonic() - start < 10


def test_a_service_that_never_answered_is_waited_for_less():
    retrier = Retrier(100, 0.2, "slow to answer")
    with pytest.raises(StorageError):
        retrier.call("read x", failing(1000), passing)
    assert retrier.call("read x", failing(0), passing) == "done"
    assert retrier.call("read x", failing(4), passing) == "done"
    assert Retrier(100, 0.0, "slow to answer").call("read x", failing(4), passing) == "done"
    with pytest.raises(StorageError):
        retrier.call("read x", failing(1000), passing, patience=0.1)


def test_any_answer_makes_it_known():
    retrier, start = Retrier(0.5, 0.0, uuid4().hex), time.monotonic()
    with pytest.raises(StorageError):
        retrier.call("read x", failing(1000), answered)
    assert time.monotonic() - start > 0.45


def test_a_new_worker_of_an_old_run_knows_the_service():
    code = """if True:
        import pickle, sys
        from hvc.base.store import StorageError
        from hvc.base.retry import Verdict
        retrier = pickle.loads(bytes.fromhex(sys.argv[1]))
        left = [1] * 4
        passing = lambda error: Verdict(True, False, "", "")
        print(retrier.call("x", lambda: 1 / (0 if left and left.pop() else 1), passing))
    """
    retrier = Retrier(100, 1e-9, "old run")
    for is_known in (False, True):
        command = [sys.executable, "-c", code, pickle.dumps(retrier).hex()]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert (done.stdout == "1.0\n") == is_known, done.stderr
        assert ("StorageError" in done.stderr) != is_known
        retrier.call("x", failing(0), passing)


def test_one_warning_per_outage(caplog):
    retrier = Retrier(20, 20, uuid4().hex)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            retrier.call("read x", failing(3), passing)
    assert [record.getMessage() for record in caplog.records] == [
        "cannot read x: no line; trying again for up to 20 s"
    ]


def test_threads_lose_no_count():
    retrier = Retrier(20, 20, uuid4().hex)

    def work():
        for _ in range(20):
            retrier.call("read x", failing(1), answered)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert retrier.retries == 160


def test_a_fork_in_the_middle_of_failures_is_no_deadlock():
    retrier, done = Retrier(60, 60, uuid4().hex), threading.Event()

    def work():
        while not done.is_set():
            retrier.call("read x", failing(1), answered)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        context = multiprocessing.get_context("fork")
        for _ in range(10):
            child = context.Process(target=retrier.call, args=("read x", failing(2), answered))
            child.start()
            child.join(20)
            assert child.exitcode == 0
    finally:
        done.set()
        for thread in threads:
            thread.join()
