"""The port that ranks meet on: of its own for every job, and free on the first node."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.slurm.plan import PORT_LINES

SCRIPT = "\n".join([*PORT_LINES, "echo $MASTER_PORT"])


def port(job_id: int) -> int:
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": str(job_id), "MASTER_PORT": "29500"}
    done = subprocess.run(
        ["bash", "-eu", "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return int(done.stdout)


@contextlib.contextmanager
def listening(number: int) -> Iterator[None]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", number))
        server.listen()
        yield


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 67_000_000), st.integers(1, 11_999))
def test_jobs_at_the_same_time_have_other_ports(job_id, later):
    first, second = port(job_id), port(job_id + later)
    assert first != second
    assert {first, second} <= set(range(1024, 65536))


def test_a_port_that_somebody_listens_on_is_passed_over():
    free = port(4711)
    assert free == port(4711)
    with listening(free):
        other = port(4711)
        assert other != free
        with listening(other):
            assert port(4711) not in (free, other)
