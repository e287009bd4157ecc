"""In which state a job is, from Slurm's word and its own record: every combination has an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.slurm.job_states import Recorded, State, judge

SLURM = ["PENDING", "RUNNING", "COMPLETING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", None]
OUTCOMES = ["running", "done", "stopped", "hung", "failed", "lost"]
records = st.none() | st.builds(Recorded, st.integers(1, 9), st.sampled_from(OUTCOMES), st.just("why"))


@pytest.mark.parametrize(
    ("slurm", "outcome", "stop_asked", "state"),
    [
        ("PENDING", None, False, State.WAITING),
        ("PENDING", "stopped", False, State.WAITING),
        ("RUNNING", "running", False, State.RUNNING),
        ("COMPLETING", "done", False, State.ENDING),
        ("COMPLETED", "done", False, State.DONE),
        ("COMPLETED", None, False, State.DONE),
        ("CANCELLED", "running", False, State.CANCELLED),
        ("CANCELLED", "stopped", True, State.STOPPED),
        ("COMPLETED", "stopped", True, State.STOPPED),
        ("FAILED", "failed", False, State.FAILED),
        ("TIMEOUT", "running", False, State.FAILED),
        ("TIMEOUT", "done", False, State.DONE),
        ("PREEMPTED", "done", False, State.DONE),
        ("CANCELLED", "done", False, State.CANCELLED),
        ("OUT_OF_MEMORY", "running", False, State.FAILED),
        (None, "done", False, State.DONE),
        (None, "failed", False, State.FAILED),
        (None, "stopped", True, State.STOPPED),
        (None, "running", False, State.LOST),
        (None, None, False, State.LOST),
    ],
)
def test_states(slurm, outcome, stop_asked, state):
    record = None if outcome is None else Recorded(1, outcome)
    assert judge(slurm, "", record, stop_asked=stop_asked, asked=True).state is state


@given(records, st.booleans())
def test_where_slurm_cannot_be_asked_only_what_is_on_record_is_certain(record, stop_asked):
    verdict = judge(None, "", record, stop_asked=stop_asked, asked=False)
    certain = record is not None and record.outcome in ("done", "failed")
    stopped = record is not None and record.outcome == "stopped" and stop_asked
    assert (verdict.state is State.UNKNOWN) == (not certain and not stopped)


@given(st.sampled_from(SLURM), records, st.booleans())
def test_what_slurm_has_ended_is_not_alive(slurm, record, stop_asked):
    verdict = judge(slurm, "", record, stop_asked=stop_asked, asked=True)
    assert verdict.state.alive == (slurm in ("PENDING", "RUNNING", "COMPLETING"))


def test_why_it_waits_is_said_plainly():
    assert judge("PENDING", "Resources", None, stop_asked=False, asked=True).reason == "for free nodes"
    assert judge("PENDING", "QOSMaxJobs", None, stop_asked=False, asked=True).reason == "QOSMaxJobs"


def test_what_was_asked_to_stop_and_has_not_yet_says_so():
    record = Recorded(1, "running")
    assert judge("RUNNING", "", record, stop_asked=True, asked=True).reason == "asked to stop"
    assert judge("RUNNING", "", record, stop_asked=False, asked=True).reason == ""


def test_what_waits_for_its_next_attempt_says_how_the_last_one_ended():
    failed = Recorded(3, "failed", "rank 0: OSError: no space")
    said = judge("PENDING", "BeginTime", failed, stop_asked=False, asked=True).reason
    assert said == "after attempt 3 failed: rank 0: OSError: no space"
    assert judge("PENDING", "BeginTime", Recorded(1, "stopped"), stop_asked=False, asked=True).reason == ""
    assert judge("PENDING", "BeginTime", None, stop_asked=False, asked=True).reason == "for its begin time"
