"""Processes: answers, errors, deaths and the wish to stop."""

import math
import os
import time

import pytest

from hvc.base.errors import HvcError
from hvc.base.stage import never
from hvc.data_prep.pool import in_processes


def test_all_answers_come_in_any_number_of_processes():
    for workers in (1, 3):
        assert sorted(in_processes(math.isqrt, [i * i for i in range(20)], workers, never)) == list(
            range(20)
        )


def test_no_tasks_no_answers():
    assert list(in_processes(math.isqrt, [], 4, never)) == []


def test_stop_ends_between_tasks():
    answers = []
    for answer in in_processes(math.isqrt, range(100), 2, lambda: len(answers) >= 5):
        answers.append(answer)
    assert 5 <= len(answers) <= 7


def test_the_error_of_a_task_arrives():
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(in_processes(math.isqrt, [1, -1], 1, never))


def test_a_worker_that_dies_is_reported():
    with pytest.raises(HvcError, match="a worker process died"):
        list(in_processes(os._exit, [9], 1, never))


def test_workers_see_the_environment_of_now(monkeypatch):
    monkeypatch.setenv("HVC_TEST_WORD", "first")
    assert list(in_processes(os.getenv, ["HVC_TEST_WORD"], 1, never)) == ["first"]
    monkeypatch.setenv("HVC_TEST_WORD", "second")
    assert list(in_processes(os.getenv, ["HVC_TEST_WORD"], 1, never)) == ["second"]


def test_tasks_run_side_by_side():
    start = time.monotonic()
    list(in_processes(time.sleep, [0.5] * 4, 4, never))
    assert time.monotonic() - start < 1.9
