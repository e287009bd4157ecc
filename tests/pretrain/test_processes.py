"""The launcher of local ranks: none is waited for in vain, and what ended one is the last word."""

import logging
import signal
import subprocess
import sys
import time

import psutil
import pytest
from running import clean_env, start_hvc, write_recipe

from hvc.base.errors import EXIT_DONE, EXIT_STOPPED, HvcError
from hvc.pretrain.training import processes


def rank(program: str) -> "subprocess.Popen[bytes]":
    """A process that does it, with `sys`, `time` and `signal` at hand."""
    return subprocess.Popen([sys.executable, "-c", f"import signal, sys, time; {program}"])


def test_the_exit_code_of_all():
    assert processes._wait([rank("pass"), rank("time.sleep(0.2)")]) == EXIT_DONE
    assert processes._wait([rank("sys.exit(75)"), rank("time.sleep(0.2)")]) == EXIT_STOPPED
    assert processes._wait([rank("time.sleep(60)"), rank("sys.exit(2)")]) == 2


@pytest.mark.parametrize("code", [EXIT_DONE, EXIT_STOPPED])
def test_a_frozen_rank_is_ended_and_named_once_another_has_left(code, caplog):
    frozen = rank("time.sleep(600)")
    frozen.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert processes._wait([rank(f"sys.exit({code})"), frozen], patience=1.0) == EXIT_STOPPED
    assert 1.0 < time.monotonic() - begin < 30
    assert frozen.poll() == -signal.SIGKILL
    assert "rank 1 did not leave within 1 s" in caplog.text
    assert "start the same command again" in caplog.text


def test_ranks_that_leave_one_after_the_other_are_let(caplog):
    assert processes._wait([rank("sys.exit(75)"), rank("time.sleep(1); sys.exit(75)")], 30) == EXIT_STOPPED
    assert not caplog.records


def test_a_killed_rank_is_named_though_another_failed_over_it():
    killed = rank("time.sleep(600)")
    killed.kill()
    with pytest.raises(HvcError, match=r"rank 1 was ended by signal 9 \(SIGKILL\): out of memory"):
        processes._wait([rank("sys.exit(1)"), killed])


def test_one_that_the_launcher_ended_is_not_named(caplog):
    caplog.set_level(logging.INFO)
    assert processes._wait([rank("time.sleep(600)"), rank("sys.exit(1)")]) == 1
    assert "SIGTERM" not in caplog.text


@pytest.mark.slow
def test_a_killed_rank_is_the_last_word_of_a_run(dataset, tmp_path):
    recipe = write_recipe(tmp_path / "killed.yaml", dataset, steps=4000)
    log = tmp_path / "log"
    launcher = start_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path, log=log)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / "checkpoints").glob("step-*/COMPLETE")):
        assert launcher.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(launcher.pid).children()
    (second,) = [child for child in children if child.environ().get("RANK") == "1"]
    second.kill()
    assert launcher.wait(60) == 1
    words = log.read_text()
    assert words.splitlines()[-1].startswith("hvc: rank 1 was ended by signal 9 (SIGKILL): out of memory?")
    assert "rank 0 lost its peer" in words
    assert ".cc:" not in words, "text of the library's own"
    assert "Traceback" not in words


_HANGS = """
import sys, time
from pathlib import Path
from hvc.pretrain.training.watchdog import Watchdog
with Watchdog(1.0, int(sys.argv[1]), Path(sys.argv[2])):
    time.sleep(600)
"""


def test_ranks_that_hang_wait_for_each_others_stacks(tmp_path):
    """The first to notice does not leave before the second, which looks a little later, has written its."""

    def begin(number: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", _HANGS, str(number), str(tmp_path)], env=clean_env())

    first = begin(0)
    while not (tmp_path / "stacks-00000.txt").exists():
        assert first.poll() is None
        time.sleep(0.01)
    written = time.monotonic()
    assert first.wait(30) == EXIT_STOPPED
    assert time.monotonic() - written > 0.4  # twice a quarter of a second
