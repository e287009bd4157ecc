"""A run that stands still says where, and leaves so that it can be started again."""

import signal
import subprocess
import sys
import time

import psutil
import pytest
from running import clean_env, start_hvc, write_recipe

pytestmark = pytest.mark.slow

_HANG = """
import sys, threading, time, pathlib
from hvc.pretrain.training.watchdog import Watchdog
told = pathlib.Path(sys.argv[1]) / "told"
def stand_still_here(): time.sleep(600)
with Watchdog(1.0, 3, told.parent, lambda: told.write_text("yes")) as dog:
    for step in range(4):
        time.sleep(0.5)
        dog.beat(step)
    stand_still_here()
"""


def test_no_step_for_too_long_ends_the_process_with_its_stacks(tmp_path):
    begin = time.monotonic()
    command = [sys.executable, "-c", _HANG, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, check=False, env=clean_env()
    )
    assert done.returncode == 75, done.stderr
    assert time.monotonic() - begin > 3.0, "it left although steps were finished"
    assert "rank 3: no step was finished for 1 s (after step 3)" in done.stderr
    assert "stand_still_here" in done.stderr
    assert "stand_still_here" in (tmp_path / "stacks-00003.txt").read_text()
    assert (tmp_path / "told").read_text() == "yes"


def test_a_frozen_rank_is_noticed_by_the_others_and_the_run_goes_on(dataset, tmp_path):
    recipe = write_recipe(
        tmp_path / "frozen.yaml", dataset, steps=400, watchdog_seconds=8, checkpoint={"every": 2, "keep": 2}
    )
    log = tmp_path / "log"
    launcher = start_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path, log=log)
    root = tmp_path / "frozen" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(root.glob("step-*/COMPLETE")) and time.monotonic() < deadline:
        assert launcher.poll() is None, log.read_text()
        time.sleep(0.05)
    ranks = [child for child in psutil.Process(launcher.pid).children() if "RANK" in child.environ()]
    (second,) = [rank for rank in ranks if rank.environ()["RANK"] == "1"]
    second.send_signal(signal.SIGSTOP)
    try:
        while "no step was finished for 8 s" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.2)
    finally:
        second.kill()
    assert launcher.wait(60) != 0
    words = log.read_text()
    assert "rank 0: no step was finished for 8 s" in words
    assert "trainer.py" in words, "no stacks"
    again = start_hvc("train", str(recipe), "steps=400", cwd=tmp_path, log=log)
    deadline = time.monotonic() + 120
    while "resuming at step" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    again.kill()
    again.wait()
    assert "resuming at step" in log.read_text()
