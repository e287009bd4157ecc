"""The command itself: what it says of itself, how it refuses, how it ends."""

import json
import os
import signal
import time

import pytest
from running import make_images, run_hvc, start_hvc


def open_when_read(fifo, process):
    """Open a pipe for writing, as soon as the process has opened it for reading."""
    for _ in range(1200):
        assert process.poll() is None
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            time.sleep(0.05)
    raise AssertionError("nobody ever read")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["--help"], ["75 stopped and saved", "130 interrupted"]),
        (["train", "--help"], ["[default: 1"]),
        (["evaluate", "--help"], ["sequences=[libby]", "[default: MLFLOW_TRACKING_URI"]),
        (["shard", "--help"], ["INPUT... OUTPUT", "youtube-vos", "[default: 0.01]"]),
        (["submit", "shard", "--help"], ["[default: 100.0]"]),
    ],
)
def test_help_shows_square_brackets_and_what_there_is(command, words, tmp_path):
    shown = " ".join(run_hvc(*command, cwd=tmp_path).stdout.split())
    for word in words:
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shard", "folder", "img", ""], "output: "),
        (["shard", "folder", "", "out"], "INPUT is empty"),
        (["shard", "folder", "gs://bucket/img", "out"], "gs://bucket/img: "),
        (["shard", "cocoa", "img", "out"], "Usage: hvc shard"),
        (["shard", "folder", "img", "out", "--max-bad", "1.5"], "max_bad: "),
        (["evaluate", "runs:/1", "folder", "s3://bucket/DAVIS"], "DATA s3://bucket/DAVIS: "),
        (["score", "folder", "out", "data", "--sequences", " ,"], "--sequences is empty"),
        (["check-results", "vost", "out", "data", "--sequences", ""], "--sequences is empty"),
        (["fly"], "Usage: hvc"),
    ],
)
def test_wrong_use_is_explained(arguments, words, tmp_path):
    done = run_hvc(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_error_begins_with_the_command_once(tmp_path):
    done = run_hvc("evaluate", "runs:/1", "folder", "data", "protocol.contxt=3", "seed=x", cwd=tmp_path)
    assert done.returncode == 2
    assert [line[:14] for line in done.stderr.splitlines()] == ["hvc evaluate: ", "hvc evaluate: "]


@pytest.mark.parametrize("value", ["1.5", "nan"])
def test_an_error_names_only_keys_that_users_know(value, tmp_path):
    done = run_hvc("shard", "folder", "img", "out", "--max-bad", value, cwd=tmp_path)
    assert "max_bad: " in done.stderr
    assert "constrained" not in done.stderr


def test_ctrl_c_before_there_is_anything_to_save(tmp_path):
    os.mkfifo(tmp_path / "recipe.yaml")
    log = tmp_path / "log"
    process = start_hvc("train", "recipe.yaml", cwd=tmp_path, log=log)
    handle = open_when_read(tmp_path / "recipe.yaml", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    os.close(handle)
    assert log.read_text() == "hvc: interrupted\n"


def test_the_doctor_answers_one_object(tmp_path):
    done = run_hvc("doctor", "--json", cwd=tmp_path)
    checks = json.loads(done.stdout)["checks"]
    assert {"name", "status", "found", "advice"} == set(checks[0])


def test_the_demo_passes_on_that_a_child_stopped_and_saved(tmp_path):
    make_images(tmp_path / "mine", 400)
    (tmp_path / "out" / "clip").mkdir(parents=True)
    (tmp_path / "out" / "clip" / ".complete").write_text("")
    log = tmp_path / "log"
    process = start_hvc("demo", "--images", "mine", "--output", "out", cwd=tmp_path, log=log)
    for _ in range(6000):
        if (tmp_path / "out/dataset-mine/.progress/lock").exists():
            break
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 75, log.read_text()
    assert "Traceback" not in log.read_text()
    assert "the same command goes on" in log.read_text()
