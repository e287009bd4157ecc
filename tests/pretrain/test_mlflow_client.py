"""The local database of runs is whole or not there, whenever a process is killed or two begin at once."""

import subprocess
import sys
import time

import pytest
from running import clean_env

from hvc.pretrain.tracking.mlflow_client import shown

PROGRAM = """
import sys
from hvc.pretrain.tracking.mlflow_client import connect
client = connect("sqlite:///" + sys.argv[1])
print(len(client.search_experiments()))
"""


def begin(path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, str(path)]
    return subprocess.Popen(command, env=clean_env(), stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_kill_while_the_database_is_made_spoils_nothing(tmp_path):
    path = tmp_path / "mlflow.db"
    first = begin(path)
    deadline = time.monotonic() + 180
    # In the middle of making it: a database is growing somewhere, under whatever name.
    while not any(file.stat().st_size > 0 for file in tmp_path.rglob("*.db")):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    first.kill()
    first.wait()
    again = begin(path)
    words, _ = again.communicate(timeout=120)
    assert again.returncode == 0
    assert words.strip() == "1"


@pytest.mark.slow
def test_two_at_once_make_one(tmp_path):
    both = [begin(tmp_path / "mlflow.db") for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_password_is_masked_wherever_a_long_text_is_cut():
    uri = "http://me:hunter2@127.0.0.1:9/"
    for place in range(220):
        text = shown(ValueError("x" * place + uri + "y" * 300), uri)
        assert not any("me:hunter2"[:length] in text for length in range(3, 11)), text
        assert len(text) < 210
