"""Who brings a job back whose ranks have ended: decided from plain facts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.errors import UsageError
from hvc.data_prep.lock import BusyError
from hvc.slurm import aftermath, control
from hvc.slurm.allocation import Script
from hvc.slurm.attempts import Attempt, Records, futile, has_worked
from hvc.slurm.job import kind_of
from hvc.slurm.requeue import Facts, Verdict, decide

FACTS = st.builds(
    Facts,
    ended_by_slurm=st.booleans(),
    stale=st.booleans(),
    outcome=st.sampled_from(["running", "done", "stopped", "hung", "failed", "lost"]),
    failure=st.sampled_from([None, "failed", "refused", "hung", "alone"]),
    stop_asked=st.booleans(),
    futile=st.integers(0, 9),
    limit=st.none() | st.integers(0, 9),
)


@given(FACTS)
def test_what_slurm_ends_or_has_started_again_is_left_to_it(facts):
    left = decide(facts) is Verdict.LEAVE
    assert left == (facts.stale or facts.ended_by_slurm)


@given(FACTS)
def test_only_a_running_job_that_nobody_stopped_is_requeued_and_not_for_ever(facts):
    if decide(facts) is Verdict.REQUEUE:
        assert not facts.ended_by_slurm
        assert not facts.stale
        assert not facts.stop_asked
        assert facts.failure != "refused"
        assert facts.limit is None or facts.futile <= facts.limit


@given(FACTS)
def test_progress_brings_back_whatever_ended_it(facts):
    facts = replace(facts, ended_by_slurm=False, stale=False, stop_asked=False)
    facts = replace(facts, outcome="failed", failure="failed", futile=0)
    assert decide(facts) is Verdict.REQUEUE


@given(FACTS)
def test_what_is_done_is_done_however_ranks_end_after_it(facts):
    facts = replace(facts, ended_by_slurm=False, stale=False, outcome="done")
    assert decide(facts) is Verdict.DONE


def test_an_output_that_others_write_is_for_a_person_to_see_to():
    assert kind_of(BusyError("another run writes here"), resumed=True) == "refused"


def test_what_was_there_before_is_missing_on_this_node_only():
    begun = Attempt(attempt=1, job_id="7", job_file="job.json", nodes="n1", started=0.0, progress=0.0)
    later = replace(begun, attempt=2, progress=40.0)
    error = UsageError("no dataset at /data")
    assert kind_of(error, resumed=has_worked([begun])) == "refused"
    assert kind_of(error, resumed=has_worked([begun, replace(begun, attempt=2)])) == "refused"
    assert kind_of(error, resumed=has_worked([begun, later])) == "failed"
    assert kind_of(error, resumed=has_worked([replace(begun, outcome="stopped")])) == "failed"


def test_a_failure_is_told_whatever_bytes_are_in_it(tmp_path):
    records = Records(tmp_path, None)
    records.fail(1, 0, "refused", "UsageError: no photo \udce9t\udce9.jpg\n")
    (failure,) = records.failures(1)
    assert (failure.kind, failure.words) == ("refused", r"UsageError: no photo \udce9t\udce9.jpg")
    failure.path.write_bytes(b"# failed\nOSError: \xe9\n")
    assert records.failures(1)[0].words == "OSError: \ufffd"


def test_a_stop_for_good_takes_it_out_of_the_queue():
    facts = Facts(False, False, "stopped", None, stop_asked=True, futile=1, limit=3)
    assert decide(facts) is Verdict.CANCEL
    assert decide(replace(facts, outcome="failed", failure="failed")) is Verdict.FAIL


def attempts(*begun: float | None, requeued: bool = True) -> list[Attempt]:
    """Records of attempts that began at these states of the work."""
    return [
        Attempt(
            attempt=number,
            job_id="7",
            job_file="job.json",
            nodes="n",
            started=0.0,
            progress=at,
            requeued=requeued and number < len(begun),
        )
        for number, at in enumerate(begun, start=1)
    ]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(0, 3))
def test_futile_attempts_are_those_since_the_work_last_grew(steps, last):
    begun = [sum(steps[:place]) for place in range(1, len(steps) + 1)]
    grew = [*steps[1:], last]
    wanted = next((n for n, step in enumerate(reversed(grew)) if step), len(grew))
    assert futile(attempts(*begun), begun[-1] + last) == wanted


def test_preemptions_neither_count_nor_wipe_the_slate():
    records = attempts(5, 5, 5, 5)
    assert futile(records, 5) == 4
    records[1] = replace(records[1], requeued=False)
    assert futile(records, 5) == 3
    assert futile(attempts(5, 5, 5, requeued=False), 5) == 1


def test_a_stage_that_cannot_say_how_far_it_is_counts_every_attempt():
    assert futile(attempts(None, None, None), None) == 3


def test_a_moment_in_which_progress_is_unknown_does_not_count_as_progress():
    assert futile(attempts(5, None, 5), 5) == 3
    assert futile(attempts(5, None, 6), 6) == 2


def test_at_the_time_limit_a_controller_that_is_busy_is_asked_again(tmp_path, monkeypatch):
    """`time_up` is the only one that is left to put the job back."""
    asked: list[str] = []

    def busy(*arguments: str) -> str:
        asked.append(" ".join(arguments))
        if len(asked) % 2:
            raise control.ControlError("Socket timed out on send/recv operation")
        if arguments[:2] == ("show", "config"):
            return "KillWait                = 0 sec\n"
        return "JobState=COMPLETING Reason=TimeLimit Restarts=0 Partition=p ExcNodeList=(null)"

    monkeypatch.setattr(control, "_scontrol", busy)
    monkeypatch.setattr(aftermath, "_PAUSES", (0.0, 0.0))
    script = Script("7", 1, restarts=0, task=None, nodes=1, tasks_per_node=1, cpus_per_task=1)
    assert aftermath.time_up(script, tmp_path, since=0.0) is Verdict.REQUEUE
    assert asked[-1] == "requeue 7"


@pytest.mark.parametrize(
    ("known", "verdict"),
    [
        ("JobState=RUNNING Reason=None Restarts=0", Verdict.REQUEUE),
        # the signal before the time limit has not reached all nodes
        ("JobState=SIGNALING Reason=None Restarts=0", Verdict.REQUEUE),
        ("JobState=COMPLETING Reason=None Restarts=0", Verdict.LEAVE),
        ("JobState=COMPLETING Reason=TimeLimit Restarts=0", Verdict.REQUEUE),
        ("JobState=COMPLETING Reason=None Restarts=0 PreemptTime=None", Verdict.LEAVE),
        ("JobState=COMPLETING Reason=None Restarts=0 PreemptTime=2026-01-01T00:00:00", Verdict.REQUEUE),
        ("JobState=COMPLETING Reason=None Restarts=1 PreemptTime=2026-01-01T00:00:00", Verdict.LEAVE),
    ],
)
def test_what_slurm_lets_run_or_drops_comes_back(tmp_path, monkeypatch, known, verdict):
    told: list[str] = []

    def controller(*arguments: str) -> str:
        told.append(" ".join(arguments))
        return f"{known} Partition=p ExcNodeList=(null)"

    monkeypatch.setattr(control, "_scontrol", controller)
    script = Script("7", 1, restarts=0, task=None, nodes=1, tasks_per_node=1, cpus_per_task=1)
    Records(tmp_path, None).write(replace(attempts(None)[0], outcome="stopped"))
    assert aftermath.settle(script, tmp_path, 75) is verdict
    assert ("requeue 7" in told) == (verdict is Verdict.REQUEUE)


def test_records_are_closed_once_and_the_cause_comes_first(tmp_path):
    records = Records(tmp_path, None)
    first = attempts(None)[0]
    records.write(first)
    records.log(2, 0).parent.mkdir(parents=True)
    records.end(1, "stopped", "USR2")
    records.close_before(2)
    found = records.read(1)
    assert found is not None
    assert (found.outcome, found.reason) == ("stopped", "USR2")
    assert records.numbers() == [1, 2]
    records.fail(2, 1, "alone", "Traceback\nPeerLostError: rank 1 lost its peer\n")
    records.fail(2, 3, "failed", "Traceback\nOSError: disk gone\njob 7, attempt 2\n")
    cause, consequence = records.failures(2)
    assert (cause.rank, cause.kind, cause.words) == (3, "failed", "OSError: disk gone")
    assert consequence.rank == 1
