"""One writer at a time, whatever becomes of the writers."""

import subprocess
import sys

import pytest

from hvc.base.errors import HvcError
from hvc.data_prep.lock import sole_writer

HOLD = """
import sys
from pathlib import Path
from hvc.data_prep.lock import sole_writer
with sole_writer(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_second_is_refused_until_the_first_is_through(tmp_path):
    path = tmp_path / "folder" / "lock"
    first = hold(path)
    with pytest.raises(HvcError, match="output there: another run writes here"), sole_writer(path, "there"):
        raise AssertionError("not to be reached")
    first.communicate()
    assert not path.exists()
    with sole_writer(path, "there"):
        assert path.exists()
    assert not path.exists()


def test_a_killed_one_holds_nobody_up(tmp_path):
    path = tmp_path / "lock"
    first = hold(path)
    first.kill()
    first.communicate()
    assert path.exists()
    with sole_writer(path, "there"):
        pass


def test_it_is_given_back_after_an_error(tmp_path):
    with pytest.raises(OSError, match="disk"), sole_writer(tmp_path / "lock", "there"):
        raise OSError("disk")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HvcError, match=r"cannot write .*lock"),
        sole_writer(tmp_path / "file" / "lock", "x"),
    ):
        raise AssertionError("not to be reached")


def test_many_at_once_never_overlap(tmp_path):
    program = """
import sys
from pathlib import Path
from hvc.base.errors import HvcError
from hvc.data_prep.lock import sole_writer
path, inside = Path(sys.argv[1]), Path(sys.argv[2])
held = 0
while held < 300:
    try:
        with sole_writer(path, "x"):
            inside.mkdir()  # fails when somebody is inside
            inside.rmdir()
            held += 1
    except HvcError:
        pass
"""
    arguments = [sys.executable, "-c", program, str(tmp_path / "lock"), str(tmp_path / "inside")]
    several = [subprocess.Popen(arguments) for _ in range(3)]
    assert [process.wait(60) for process in several] == [0] * len(several)
    assert list(tmp_path.iterdir()) == []
