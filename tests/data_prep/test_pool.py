"""Processes: answers, errors, deaths and the wish to stop."""

import math
import os
import pickle
import subprocess
import sys
import time

import psutil
import pytest

from hvc.base.errors import HvcError
from hvc.base.stage import never
from hvc.data_prep.pool import Workers, in_processes
from hvc.data_prep.worker import COMMAND

PARENT = """
import time
from hvc.base.stage import never
from hvc.data_prep.pool import in_processes
print("begun", flush=True)
list(in_processes(time.sleep, [60, 60], 2, never))
"""


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


def test_tasks_run_side_by_side(tmp_path):
    """None ends before all have begun; one after the other, the first would wait in vain."""
    all_there = f'[ "$(ls {tmp_path} | wc -l)" -eq 4 ]'
    wait = f"touch {tmp_path}/$$; for i in $(seq 600); do {all_there} && exit; sleep 0.1; done; exit 1"
    assert list(in_processes(os.system, [wait] * 4, 4, never)) == [0] * 4


def test_an_error_says_where_in_the_worker_it_came_from():
    with pytest.raises(ValueError, match=r"math domain|nonnegative") as caught:
        list(in_processes(math.isqrt, [-1], 1, never))
    assert "in _answer" in caught.value.__notes__[0]


def test_an_answer_that_cannot_be_sent_is_an_error():
    with pytest.raises(RuntimeError, match="cannot be sent"):
        list(in_processes(os.scandir, ["/"], 1, never))


def test_what_a_task_prints_is_no_answer(capfd):
    assert list(in_processes(print, ["a word"], 1, never)) == [None]
    assert capfd.readouterr().out == ""


def test_workers_are_used_again_and_started_when_needed():
    with Workers(3, load=["math"]) as workers:
        workers.warm_up(1)
        list(workers.run(time.sleep, [0.1] * 6, never))
        first = {child.pid for child in psutil.Process().children()}
        list(workers.run(time.sleep, [0.1] * 6, never))
        assert {child.pid for child in psutil.Process().children()} == first
        assert len(first) >= 3
    assert len({child.pid for child in psutil.Process().children()} & first) == len(first) - 3


def test_who_stops_listening_ends_the_running_tasks():
    answers = in_processes(time.sleep, [0, 60], 2, never)
    assert next(answers) is None
    start = time.monotonic()
    answers.close()
    assert time.monotonic() - start < 20


def test_no_task_is_taken_while_nobody_takes_the_answers():
    taken = []
    answers = in_processes(math.isqrt, (taken.append(i) or i for i in range(100)), 2, never)
    next(answers)
    time.sleep(0.3)
    assert len(taken) == 2
    answers.close()


def test_an_answer_that_nobody_takes_any_more_ends_the_worker_quietly():
    command = [sys.executable, "-c", COMMAND, "", *sys.path]
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    )
    worker.stdout.close()
    task = pickle.dumps((math.isqrt, 4))
    worker.stdin.write(len(task).to_bytes(8, "little") + task)
    worker.stdin.flush()
    assert worker.stderr.read() == b""
    assert worker.wait() == 0
    worker.stdin.close()
    worker.stderr.close()


def test_workers_end_with_their_parent_even_in_the_middle_of_a_task():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout.readline() == b"begun\n"
    deadline = time.monotonic() + 20
    while len(children := psutil.Process(parent.pid).children()) < 2:
        assert time.monotonic() < deadline
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
