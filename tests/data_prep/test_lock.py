"""One writer at a time, whatever becomes of the writers."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

from hvc.base.errors import HvcError
from hvc.data_prep.lock import BusyError, TakenOverError, Turn, one_of_several_writers, sole_writer

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


def test_a_later_attempt_takes_over_and_the_earlier_one_knows(tmp_path):
    path = tmp_path / "lock"
    first, second = Turn("job 7", 1), Turn("job 7", 2)
    with sole_writer(path, "there", turn=first) as check_first:
        check_first()
        with sole_writer(path, "there", turn=second) as check_second:
            check_second()
            with pytest.raises(TakenOverError, match="attempt 1, was lost"):
                check_first()
        with pytest.raises(TakenOverError):
            check_first()  # the later one has ended, and it is still over
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("holder", "comer"),
    [
        (Turn("job 7", 2), Turn("job 7", 1)),
        (Turn("job 7", 1), Turn("job 7", 1)),
        (Turn("job 7", 1), Turn("job 8", 2)),
        (Turn(), Turn("job 7", 2)),
        (Turn(), Turn()),
    ],
)
def test_nobody_else_takes_over(tmp_path, holder, comer):
    path = tmp_path / "lock"
    with sole_writer(path, "there", turn=holder) as check:
        with pytest.raises(BusyError), sole_writer(path, "there", turn=comer):
            raise AssertionError("not to be reached")
        check()


def test_who_was_taken_over_leaves_the_other_ones_lock(tmp_path):
    path = tmp_path / "lock"
    with ExitStack() as later:
        with sole_writer(path, "there", turn=Turn("job 7", 1)):
            check = later.enter_context(sole_writer(path, "there", turn=Turn("job 7", 2)))
        check()
        with pytest.raises(BusyError), sole_writer(path, "there"):
            raise AssertionError("not to be reached")


def test_nobody_takes_over_from_several_by_what_a_killed_sole_writer_left(tmp_path):
    path = tmp_path / "lock"
    with sole_writer(path, "there", turn=Turn("job 7", 1)):
        left = path.read_bytes()
    path.write_bytes(left)  # as after SIGKILL
    with one_of_several_writers(path, "there"):
        with pytest.raises(BusyError), sole_writer(path, "there", turn=Turn("job 7", 2)):
            raise AssertionError("not to be reached")
        assert path.exists()
