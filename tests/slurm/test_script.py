"""The shell lines around srun, run by a shell; and the requests that a running job hears."""

import os
import signal
import subprocess
import time

import pytest

from hvc.base.stage import StopFlag
from hvc.slurm import requests
from hvc.slurm.requests import StopOrRequest
from hvc.slurm.script import aftermath_lines, attempt_lines, step_lines, watch_lines


def bash(lines, **env):
    script = "\n".join(lines)
    return subprocess.run(
        ["bash", "-c", script], env=os.environ | env, capture_output=True, text=True, check=False
    )


SAY = 'echo "$HVC_ATTEMPT $SLURM_NTASKS $SLURM_NPROCS"'


def test_every_start_has_a_number_and_a_folder_of_its_own(tmp_path):
    folder = tmp_path / "a folder"
    lines = [*attempt_lines(folder, tasks_per_node=4), SAY]
    env = {"SLURM_JOB_NUM_NODES": "3", "SLURM_NTASKS": "8"}
    assert [bash(lines, **env).stdout for _ in range(2)] == ["1 12 12\n", "2 12 12\n"]
    assert bash(lines, **env, SLURM_ARRAY_TASK_ID="5").stdout == "1 12 12\n"
    made = {str(path.relative_to(folder)) for path in folder.rglob("attempt-*")}
    assert made == {"logs/attempt-1", "logs/attempt-2", "logs/task-5/attempt-1"}


def test_without_room_for_logs_it_ends_and_does_not_count_for_ever(tmp_path):
    (tmp_path / "logs").write_text("in the way")
    done = bash([*attempt_lines(tmp_path, 1), SAY], SLURM_JOB_NUM_NODES="1")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(("node", "steps"), [("node1", [0, 1, 2, 3, 0]), ("", [0, 0, 0, 0, 0])])
def test_an_attempts_step_has_another_number_than_those_before(tmp_path, node, steps):
    """A step of the job is one call of srun; a local job has none to pass over."""
    lines = [
        "set -euo pipefail",
        'srun() { echo step; return 1; }; timeout() { shift 2; "$@"; }',
        *attempt_lines(tmp_path, 1),
        *step_lines(),
        "echo end",
    ]
    done = [bash(lines, SLURM_JOB_NUM_NODES="1", SLURMD_NODENAME=node) for _ in steps]
    assert [(one.stdout, one.stderr) for one in done] == [
        ("step\n" * count + "end\n", "") for count in steps
    ]


@pytest.mark.parametrize("status", [0, 75])
def test_the_aftermath_comes_when_not_all_ended_well(tmp_path, status):
    lines = [f"(exit {status})", "", "# teardown", *aftermath_lines(tmp_path / "a b", "echo asked")]
    done = bash(lines)
    asked = f"asked -u -m hvc.slurm.aftermath {tmp_path}/a b {status}\n"
    assert done.stdout == ("" if status == 0 else asked)
    assert done.returncode == 0


def test_the_shell_outlives_the_signal_that_ends_its_ranks(tmp_path):
    lines = [
        *attempt_lines(tmp_path, 1),
        "(sleep 0.2; kill -TERM $$) &",
        "sleep 0.5; (exit 7)",
        *aftermath_lines(tmp_path, "echo asked"),
    ]
    assert bash(lines, SLURM_JOB_NUM_NODES="1").stdout.endswith(" 7\n")


def test_a_strict_setup_does_not_end_the_script_with_its_ranks(tmp_path):
    """`set -e` among a cluster's `setup` lines would skip what brings the job back."""
    lines = [
        "set -euo pipefail",
        *attempt_lines(tmp_path, 1),
        *watch_lines(tmp_path, "echo asked"),
        "(exit 75)",
        *aftermath_lines(tmp_path, "echo asked"),
    ]
    done = bash(lines, SLURM_JOB_NUM_NODES="1")
    assert done.stdout.endswith(" 75\n")
    assert done.stderr == ""


@pytest.mark.parametrize("times", [0, 1, 2])
def test_at_the_time_limit_a_second_shell_asks_while_the_ranks_still_run(tmp_path, times):
    """Nothing of it is left when the script ends: it would keep the pipe open."""
    lines = [
        *watch_lines(tmp_path, "echo asked"),
        *['sleep 0.3; kill -TERM "$HVC_WATCH"'] * times,
        "sleep 0.3; echo ranks gone; (exit 0)",
        *aftermath_lines(tmp_path, "echo asked"),
        'echo "ended $?"',
    ]
    begin = time.monotonic()
    done = bash(lines)
    assert time.monotonic() - begin < 30
    asked = f"asked -u -m hvc.slurm.aftermath {tmp_path} time-up\n"
    assert done.stdout == asked * times + "ranks gone\nended 0\n"
    assert done.stderr == ""


def test_the_second_shell_does_not_outlive_the_first_that_is_killed(tmp_path):
    lines = [*watch_lines(tmp_path, "echo asked"), "echo $HVC_WATCH", "sleep 0.5", "kill -KILL $$"]
    begin = time.monotonic()
    done = bash(lines)  # returns when nobody holds the pipe any more
    assert time.monotonic() - begin < 20
    assert done.returncode == -signal.SIGKILL
    assert "asked" not in done.stdout


def test_requests_are_heard_by_the_rank_that_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "_LOOK_SECONDS", 0.0)
    stop = StopOrRequest(StopFlag(), tmp_path, None, nodes=2, looks=True)
    deaf = StopOrRequest(StopFlag(), tmp_path, None, nodes=2, looks=False)
    folder = tmp_path / "requests"
    folder.mkdir()
    for words in ('{"nodes": 2}', '{"nodes": "3"}', '{"nodes": 0}', '{"nodes"', "[]"):
        (folder / "resize.json").write_text(words)
        assert not stop(), words
    requests.ask_resize(tmp_path, 3)
    assert stop()
    assert not deaf()
    assert stop.reason == "asked to go on with 3 nodes"
    requests.fulfil_resize(tmp_path, 2)
    assert requests.wanted_nodes(tmp_path) == 3
    requests.fulfil_resize(tmp_path, 3)
    assert requests.wanted_nodes(tmp_path) is None


def test_a_stop_for_one_task_is_none_for_the_others(tmp_path):
    requests.ask_stop(tmp_path, 2)
    assert requests.stop_asked(tmp_path, 2)
    assert not requests.stop_asked(tmp_path, 1)
    assert not requests.stop_asked(tmp_path, None)
    requests.ask_stop(tmp_path, None)
    assert requests.stop_asked(tmp_path, 1)
    requests.forget_stop(tmp_path, None)
    assert not requests.stop_asked(tmp_path, 1)
