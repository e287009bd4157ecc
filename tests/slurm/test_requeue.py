"""Who brings a stopped job back: decided from plain facts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.slurm import requeue
from hvc.slurm.allocation import Allocation
from hvc.slurm.requeue import Verdict, decide

STATE = st.sampled_from(
    ["RUNNING", "COMPLETING", "PENDING", "CANCELLED", "TIMEOUT", "PREEMPTED", "REQUEUED"]
)
LIMIT = st.none() | st.integers(0, 9)


@given(STATE, st.integers(0, 9), LIMIT, st.booleans())
def test_only_a_running_healthy_job_below_its_limit_is_requeued(state, requeues, limit, failed):
    wanted = state == "RUNNING" and not failed and (limit is None or requeues < limit)
    assert (decide(state, requeues, limit, failed) is Verdict.REQUEUE) == wanted


@given(STATE, st.integers(0, 9), LIMIT)
def test_a_failed_job_fails_whatever_its_state(state, requeues, limit):
    assert decide(state, requeues, limit, failed=True) is Verdict.FAIL


@given(STATE.filter(lambda state: state != "RUNNING"), st.integers(0, 9), LIMIT)
def test_what_slurm_ends_is_left_to_slurm(state, requeues, limit):
    assert decide(state, requeues, limit, failed=False) is Verdict.LEAVE


@given(st.integers(0, 9))
def test_a_job_may_be_requeued_exactly_as_often_as_its_limit(limit):
    verdicts = [decide("RUNNING", requeues, limit, failed=False) for requeues in range(limit + 1)]
    assert verdicts == [Verdict.REQUEUE] * limit + [Verdict.GIVE_UP]


@pytest.mark.parametrize(
    ("hand_back", "words"),
    [
        (requeue.hand_back, "stopped and saved, but not requeued"),
        (
            requeue.hand_back_hung,
            "it stood still and was ended; .* is lost, but not requeued",
        ),
    ],
)
def test_a_job_that_cannot_be_requeued_says_what_became_of_it(hand_back, words, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no scontrol
    monkeypatch.setattr(requeue, "_PAUSE_SECONDS", 0.0)
    task = Allocation(job_id="7", attempt=1, rank=0, world_size=1, nodes="node")
    with pytest.raises(HvcError, match=words) as error:
        hand_back(task, None, tmp_path)
    assert str(error.value).count("stopped and saved") == words.count("stopped and saved")
