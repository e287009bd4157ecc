"""What `hvc jobs` shows of folders as submission and training leave them, where no Slurm answers."""

import json
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from running import run_hvc

from hvc.base.errors import UsageError
from hvc.pretrain.tracking.journal import JOURNAL, Journal
from hvc.pretrain.tracking.run_note import RunNote
from hvc.slurm import local, requests
from hvc.slurm.attempts import Attempt, Records
from hvc.slurm.job_choice import choose
from hvc.slurm.job_index import index_file, job_folders, remember
from hvc.slurm.job_logs import Follower, excerpts
from hvc.slurm.job_states import State
from hvc.slurm.jobs import JobGroup, JobRow, Listing, find_submissions, list_jobs
from hvc.slurm.jobs_text import print_jobs
from hvc.slurm.requests import stop_asked
from hvc.slurm.rivals import rivals
from hvc.slurm.submission import Submission, this_user

NOW = time.time()


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch, tmp_path):
    """A machine without Slurm, whose user has submitted nothing yet."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def submission(root: Path, job_id: str, name: str, *, age: float = 60.0, **more) -> Path:
    """A folder as `submit` makes it."""
    folder = root / f"{more.get('stage', 'train')}-{job_id}"
    folder.mkdir(parents=True)
    values = {
        "job_id": job_id,
        "stage": "train",
        "name": name,
        "submitted": NOW - age,
        "cluster": "test",
        "sbatch": "job.sh",
        "command": "hvc submit train",
        "user": this_user(),
        "workdir": str(root),
    }
    Submission(**values | more).write(folder)
    return folder


def attempt(folder: Path, number: int, outcome: str, task: int | None = None, reason: str = "") -> None:
    """The record of an attempt that began ten minutes ago, and ended five seconds ago if it did."""
    ended = None if outcome == "running" else NOW - 5
    about = {"job_id": "1", "job_file": "job.json", "nodes": "node1", "started": NOW - 600}
    record = Attempt(attempt=number, outcome=outcome, reason=reason, ended=ended, **about)
    Records(folder, task).write(record)


def log(folder: Path, number: int, rank: int, text: str) -> Path:
    path = folder / "logs" / f"attempt-{number}" / f"rank-{rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run(folder: Path, step: int, run_id: str = "cafe0123") -> str:
    """The output folder of a run that made so many steps."""
    journal = Journal(folder / JOURNAL)
    journal.append("journal", version=1, run_key="0" * 32, adopted=False)
    tags = {"hvc.total_steps": "1000"}
    journal.append("attempt", number=1, name=folder.name, experiment="hvc", tags=tags, params={}, code="c")
    speed = {"train/loss": -0.5, "perf/images_per_second": 2000.0, "perf/step_seconds": 0.5}
    journal.append("metrics", step=step, values=speed)
    journal.close()
    RunNote("http://tracking:5000", "hvc", "0" * 32, run_id).write(folder)
    return str(folder)


def shown(listing: Listing, everything: bool = False) -> str:
    out = StringIO()
    print_jobs(listing, NOW, Console(file=out, width=120), everything)
    return out.getvalue()


def test_what_ended_is_known_without_slurm_and_the_rest_is_not_guessed(tmp_path):
    root = tmp_path / "slurm-jobs"
    done = submission(root, "1", "first", output=run(tmp_path / "outputs" / "first", 1000))
    attempt(done, 1, "stopped")
    attempt(done, 2, "done")
    failed = submission(root, "2", "second", age=50)
    attempt(failed, 1, "failed", reason="rank 1: OSError: no space")
    attempt(submission(root, "3", "third", age=40), 1, "running")
    submission(root, "4", "fourth", age=30)
    listing = list_jobs(find_submissions())
    rows = {group.submission.job_id: group.rows[0] for group in listing.groups}
    assert [group.submission.job_id for group in listing.groups] == ["4", "3", "2", "1"], "newest first"
    states = {job_id: row.state for job_id, row in rows.items()}
    assert states == {"1": State.DONE, "2": State.FAILED, "3": State.UNKNOWN, "4": State.UNKNOWN}
    assert rows["1"].attempt == 2
    assert rows["1"].progress.step == 1000
    text = shown(listing)
    assert "Slurm could not be asked (no squeue here)" in text
    assert "2  rank 1: OSError: no space" in text
    assert "http://tracking:5000/#/runs/cafe0123" in text


def test_a_users_own_way_to_list_jobs_hides_none_of_them(tmp_path, monkeypatch):
    """A job that squeue does not show would be called lost, and be submitted a second time."""
    of_slurm(tmp_path, squeue='[ -n "$SQUEUE_PARTITION" ] || echo "1|RUNNING|n1|None|"')
    monkeypatch.setenv("SQUEUE_PARTITION", "cpu")
    submission(tmp_path / "slurm-jobs", "1", "first")
    (group,) = list_jobs(find_submissions()).groups
    assert group.rows[0].state is State.RUNNING


def test_without_accounting_a_forgotten_job_has_ended_and_may_go_on(tmp_path, monkeypatch):
    """The controller answers, and does not know it any more: that is enough to submit it again."""
    of_slurm(tmp_path, squeue="", sacct="echo 'sacct: error: Problem talking to the database' >&2; exit 1")
    attempt(submission(tmp_path / "slurm-jobs", "7", "first", output=str(tmp_path / "out")), 1, "stopped")
    listing = list_jobs(find_submissions())
    assert listing.groups[0].rows[0].state is State.LOST
    assert (listing.problem, listing.remark) == ("", "sacct: Problem talking to the database")
    assert "accounting could not be asked" in shown(listing)
    assert list(rivals(tmp_path / "slurm-jobs", str(tmp_path / "out"))) == []
    monkeypatch.setenv("PATH", f"{tmp_path / 'empty'}:/usr/bin:/bin")
    refused = run_hvc("cancel", "7", cwd=tmp_path)
    assert "has ended already" in refused.stderr


def test_to_cancel_what_joins_the_parts_stops_none_of_them(tmp_path, monkeypatch):
    waits = 'for job in 8_0 8_1 9; do echo "$job|PENDING|||"; done'
    of_slurm(tmp_path, squeue=waits, scancel='echo "$@" >> told')
    folder = submission(tmp_path / "slurm-jobs", "8", "parts", array=2, join_job_id="9")
    monkeypatch.setenv("PATH", f"{tmp_path / 'empty'}:/usr/bin:/bin")
    assert run_hvc("cancel", "9", cwd=tmp_path).returncode == 0
    assert (tmp_path / "told").read_text() == "9\n"
    assert [stop_asked(folder, task) for task in (0, 1, None)] == [False, False, True]
    assert run_hvc("cancel", "8", cwd=tmp_path).returncode == 0
    assert [stop_asked(folder, task) for task in (0, 1, None)] == [True, True, True]


def test_a_pipeline_is_listed_and_ended_by_its_name(tmp_path, monkeypatch):
    waits = 'for job in 8 9 10; do echo "$job|PENDING|||"; done'
    of_slurm(tmp_path, squeue=waits, sacct="echo head", scancel='echo "$@" >> told')
    root, pipeline = tmp_path / "slurm-jobs", str(tmp_path / "pipelines" / "nightly")
    attempt(submission(root, "7", "shard", age=90, stage="shard", parent=pipeline), 1, "done")
    submission(root, "8", "train", age=80, parent=pipeline, parent_name="every night")
    submission(root, "9", "evaluate", age=70, stage="evaluate", parent=pipeline)
    submission(root, "10", "other", age=60)
    monkeypatch.setenv("PATH", f"{tmp_path / 'empty'}:/usr/bin:/bin")
    listed = json.loads(run_hvc("jobs", "nightly", "--json", cwd=tmp_path).stdout)
    assert [one["job_id"] for one in listed["submissions"]] == ["9", "8", "7"]
    (one,) = json.loads(run_hvc("jobs", "10", "--json", cwd=tmp_path).stdout)["submissions"]
    assert one["name"] == "other"
    done = run_hvc("cancel", pipeline, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["jobs"] == ["9", "8"], "what waits for others goes first"
    assert (tmp_path / "told").read_text() == "9\n8\n"
    submission(root, "11", "nightly")
    submission(root, "12", "train", parent=str(tmp_path / "second"), parent_name="10")
    for name in ("nightly", "10"):
        refused = run_hvc("cancel", name, cwd=tmp_path)
        assert refused.returncode == 2
        assert "give the folder, or a job id" in refused.stderr


def of_slurm(folder: Path, **commands: str) -> None:
    """Put commands of Slurm where this machine without Slurm looks for them."""
    place = folder / "empty"
    place.mkdir(exist_ok=True)
    for name, script in commands.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)


def test_a_number_of_nodes_that_slurm_refused_is_told(tmp_path):
    squeue = tmp_path / "empty" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text('#!/bin/sh\necho "1|RUNNING|n[1-2]|None|"\n')
    squeue.chmod(0o755)
    folder = submission(tmp_path / "slurm-jobs", "1", "first")
    requests.ask_resize(folder, 9)
    requests.refuse_resize(folder)
    assert "running: Slurm refused 9 nodes" in shown(list_jobs(find_submissions()))
    requests.ask_resize(folder, 3)
    assert "refused" not in shown(list_jobs(find_submissions()))


def test_tasks_of_an_array_are_counted_and_what_failed_is_named(tmp_path):
    root = tmp_path / "slurm-jobs"
    sweep = submission(root, "7", "sweep", array=12, join_job_id="8")
    for task in range(12):
        output = run(tmp_path / "outputs" / f"member-{task}", 10 * (task + 1))
        (sweep / f"job-{task}.json").write_text(json.dumps({"config": {"output": output}}))
        attempt(sweep, 1, "failed" if task == 5 else "done", task, "rank 0: ValueError: bad" * (task == 5))
    attempt(sweep, 1, "done")
    listing = list_jobs(find_submissions())
    (group,) = listing.groups
    assert [row.progress.step for row in group.rows if row.role == "task"] == list(range(10, 130, 10))
    text = shown(listing)
    assert "1 failed, 11 done" in text
    assert "7[12]" in text
    assert "7_5  rank 0: ValueError: bad" in text
    assert "joins them" in text


def test_submissions_of_a_pipeline_stand_together_in_their_order():
    def group(job_id, name, age, parent):
        values = {"stage": name, "name": name, "cluster": "c", "sbatch": "s", "command": "", "user": "u"}
        one = Submission(job_id=job_id, submitted=NOW - age, workdir="/", parent=parent, **values)
        row = JobRow(job_id, None, "job", State.WAITING, "for a job before it", "", *[None] * 4)
        return JobGroup(Path(f"/{job_id}"), one, (row,))

    groups = [group("4", "alone", 1, None), group("3", "evaluate", 2, "/p/whole")]
    groups += [group("9", "other", 3, None), group("1", "shard", 4, "/p/whole")]
    text = shown(Listing(tuple(groups)))
    places = [text.index(word) for word in ("alone", "whole", "shard", "evaluate", "other")]
    assert places == sorted(places)
    assert "2 waiting" in text
    assert "waiting for a job before it" in text
    assert "could not be asked" not in text


def test_old_ones_are_left_out_unless_asked_for(tmp_path):
    root = tmp_path / "slurm-jobs"
    old = submission(root, "1", "old", age=10 * 86400)
    attempt(old, 1, "done")
    record = json.loads((old / "attempts" / "attempt-1.json").read_text())
    record |= {"started": NOW - 9 * 86400, "ended": NOW - 8 * 86400}
    (old / "attempts" / "attempt-1.json").write_text(json.dumps(record))
    waits = submission(root, "2", "waits", age=9 * 86400)
    listing = list_jobs(find_submissions())
    assert [group.folder.name for group in listing.recent(NOW).groups] == [waits.name], "it may still wait"
    assert len(listing.groups) == 2


def test_a_damaged_folder_hides_no_other(tmp_path):
    root = tmp_path / "slurm-jobs"
    good = submission(root, "1", "good")
    attempt(good, 1, "done")
    torn = submission(root, "2", "torn", output=run(tmp_path / "outputs" / "torn", 10))
    attempt(torn, 1, "running")
    (torn / "attempts" / "attempt-1.json").write_text('{"attempt": 1, "outc')
    (tmp_path / "outputs" / "torn" / JOURNAL).write_bytes(b"\xff\x00 not ours\n")
    (root / "stray").mkdir()
    (root / "stray" / "submission.json").write_text("[]")
    states = {group.folder.name: group.rows[0].state for group in list_jobs(find_submissions()).groups}
    assert states == {good.name: State.DONE, torn.name: State.UNKNOWN}


def test_submissions_are_found_from_any_folder(tmp_path, monkeypatch):
    for place in ("here", "there"):
        submission(tmp_path / place, place[0], place)
        remember(tmp_path / place)
        remember(tmp_path / place)
    assert index_file().read_text().count("\n") == 2, "each is on the list once"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert {one.name for _, one in find_submissions()} == {"here", "there"}
    assert job_folders() == [tmp_path / "here", tmp_path / "there"]
    listed = run_hvc("jobs", "--all", "--json", "--folder", str(tmp_path / "here"), cwd=tmp_path)
    assert [one["name"] for one in json.loads(listed.stdout)["submissions"]] == ["here"]


def test_a_state_folder_that_takes_nothing_is_no_reason_to_fail(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    remember(tmp_path)
    assert job_folders() == []


def test_a_job_is_meant_by_id_folder_name_run_or_their_beginning(tmp_path):
    root = tmp_path / "slurm-jobs"
    first = submission(root, "12", "imagenet", output=run(tmp_path / "outputs" / "a", 1, run_id="feedbeef"))
    array = submission(root, "120", "sweep", array=4, join_job_id="121", stage="evaluate")
    found = find_submissions()
    for text in ("12", str(first), first.name, "imagenet", "imag", "feedb", "train-1"):
        assert choose(text, found).folder == first, text
    assert (choose("120_3", found).folder, choose("120_3", found).job_id) == (array, "120_3")
    assert choose("121", found).job_id == "121"
    with pytest.raises(UsageError, match="no job 'cafe'"):
        choose("cafe", found)
    with pytest.raises(UsageError, match="tasks 0 to 3"):
        choose("120_4", found)
    with pytest.raises(UsageError, match="has no tasks"):
        choose("12_0", found)


def test_a_job_is_found_by_an_id_that_it_had_before(tmp_path):
    root = tmp_path / "slurm-jobs"
    again, array = (
        submission(root, "27", "again"),
        submission(root, "70", "parts", array=2, join_job_id="71"),
    )
    for name in ("15_submission.sh", "15_submitted.pkl", "27_submission.sh", "27_submitted.pkl"):
        (again / name).touch()
    for number, kinds in ((58, ("0_", "1_")), (59, ("",)), (70, ("1_",)), (71, ("",))):
        (array / f"{number}_submission.sh").touch()
        for kind in kinds:
            (array / f"{number}_{kind}submitted.pkl").touch()
    found = find_submissions()
    assert (choose("15", found).folder, choose("15", found).job_id) == (again, "27")
    ids = {text: choose(text, found).job_id for text in ("58", "58_0", "59", "70", "71")}
    assert ids == {"58": "70", "58_0": "70_0", "59": "71", "70": "70", "71": "71"}
    with pytest.raises(UsageError, match="tasks 0 to 1"):
        choose("58_2", found)
    newer = submission(root, "15", "newer")
    (newer / "15_submission.sh").touch()
    assert choose("15", find_submissions()).folder == newer, "whose id it is now"


def test_a_job_is_found_by_its_output_where_none_has_that_name(tmp_path):
    root = tmp_path / "slurm-jobs"
    first = submission(root, "1", "imagenet", output="/shared/me/runs/first")
    submission(root, "2", "imagenet", output="s3://bucket/runs/second/")
    submission(root, "3", "first-of-all", output="/shared/me/runs/third")
    assert choose("first", find_submissions()).folder == first, "what is exact goes before a beginning"
    assert choose("second", find_submissions()).job_id == "2"
    attempt(submission(root, "4", "other", output="/elsewhere/first"), 1, "done")
    attempt(first, 1, "done")
    with pytest.raises(UsageError, match="may mean 2 submissions"):
        choose("first", find_submissions())
    submission(root, "5", "first")
    assert choose("first", find_submissions()).job_id == "5", "a name goes before an output"


def test_of_several_with_one_name_the_one_that_is_alive_is_meant(tmp_path):
    root = tmp_path / "slurm-jobs"
    for job_id in ("1", "2", "3"):
        attempt(submission(root, job_id, "imagenet"), 1, "done" if job_id != "2" else "running")
    assert choose("imagenet", find_submissions()).job_id == "2"
    attempt(submission(root, "4", "imagenet"), 1, "running")
    with pytest.raises(UsageError, match="may mean 4 submissions"):
        choose("imagenet", find_submissions())


def on_this_machine(job_id: str, state: str) -> None:
    """What the runner of a local job has last said."""
    local.state_folder().mkdir(parents=True, exist_ok=True)
    (local.state_folder() / f"{job_id}.json").write_text(json.dumps({"state": state}))


def test_a_task_is_not_begun_anew_while_others_of_its_array_run(tmp_path):
    """They would be lost sight of, as the submission gets another id."""
    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen([*sleeps, "hvc.slurm.local"]) as runner, subprocess.Popen(sleeps) as other:
        root, me = tmp_path / "slurm-jobs", str(runner.pid)
        submission(root, me, "array", array=2, local=True)
        on_this_machine(f"{me}_0", "FAILED")
        on_this_machine(f"{me}_1", "RUNNING")
        submission(root, str(other.pid), "ended", local=True)
        on_this_machine(str(other.pid), "RUNNING")
        states = {
            row.job_id: row.state for group in list_jobs(find_submissions()).groups for row in group.rows
        }
        runs = run_hvc("requeue", f"{me}_0", cwd=tmp_path)
        runner.kill()
        other.kill()
    assert states == {
        f"{me}_0": State.FAILED,
        f"{me}_1": State.RUNNING,
        str(other.pid): State.LOST,  # another process has its id by now
    }
    assert runs.returncode == 1
    assert f"job {me}_1 of the same submission: running" in runs.stderr


def test_other_peoples_jobs_are_left_alone(tmp_path):
    submission(tmp_path / "slurm-jobs", "1", "theirs", user="somebody-else")
    for words in (("cancel", "1"), ("requeue", "1"), ("cancel", "theirs", "--now")):
        done = run_hvc(*words, cwd=tmp_path)
        assert done.returncode == 2
        assert "submitted by somebody-else" in done.stderr


def test_the_first_failure_is_shown_before_those_that_follow_from_it(tmp_path):
    folder = submission(tmp_path / "slurm-jobs", "1", "job")
    attempt(folder, 1, "stopped")
    attempt(folder, 2, "failed")
    for number in (1, 2):
        for rank in range(4):
            log(
                folder,
                number,
                rank,
                "".join(f"attempt {number} rank {rank} line {n}\n" for n in range(500)),
            )
    Records(folder, None).fail(2, 0, "alone", "RuntimeError: peer closed\n")
    Records(folder, None).fail(2, 2, "failed", "ValueError: the cause\n")
    chosen = choose("1", find_submissions())
    traceback, end = excerpts(chosen, None, None, lines=3)
    assert "rank 2 failed in attempt 2; after it rank 0" in traceback.title
    assert "ValueError: the cause" in traceback.text
    assert end.text.splitlines() == [f"attempt 2 rank 2 line {n}" for n in (497, 498, 499)]
    (only,) = excerpts(chosen, 3, 1, lines=1)
    assert only.text == "attempt 1 rank 3 line 499\n"
    with pytest.raises(UsageError, match="no log of attempt 3; there are: 1, 2"):
        excerpts(chosen, None, 3)
    with pytest.raises(UsageError, match="no log of rank 9; there are 0 to 3"):
        excerpts(chosen, 9, None)
    (group,) = list_jobs(find_submissions()).groups
    assert group.rows[0].reason == "ValueError: the cause"


def test_a_traceback_is_shown_once(tmp_path):
    folder = submission(tmp_path / "slurm-jobs", "1", "job")
    attempt(folder, 1, "failed")
    inner = '  File "stage.py", line 1, in run\nValueError: the cause\njob 1, rank 0\n'
    outer = "Traceback (most recent call last):\n" + '  File "submitit.py", line 9, in main\n' * 90 + inner
    log(folder, 1, 0, f"step 1\n{outer}the last word\n")
    log(folder, 1, 1, f"step 1\n{outer.replace('cause', 'consequence')}")
    for rank, words in enumerate((inner, inner.replace("cause", "consequence"))):
        kind = "alone" if rank else "failed"
        Records(folder, None).fail(1, rank, kind, f"Traceback (most recent call last):\n{words}")
    chosen = choose("1", find_submissions())
    traceback, end = excerpts(chosen, None, None)
    assert traceback.text.startswith("Traceback")
    assert end.text == "step 1\n(the traceback above)\nthe last word\n"
    assert "the consequence" in excerpts(chosen, 1, None)[0].text
    assert excerpts(chosen, 1, None, lines=2)[1].text == "step 1\n(the traceback above)\n"


def test_before_any_rank_has_a_log_what_the_script_said_is_shown(tmp_path):
    folder = submission(tmp_path / "slurm-jobs", "1", "job")
    chosen = choose("1", find_submissions())
    assert "written nothing yet" in excerpts(chosen, None, None)[0].title
    (folder / "logs").mkdir()
    (folder / "logs" / "slurm-1.out").write_text("module: command not found\n")
    assert "command not found" in excerpts(chosen, None, None)[0].text


def test_what_the_script_of_one_task_said_is_not_shown_for_another(tmp_path):
    folder = submission(tmp_path / "slurm-jobs", "7", "array", array=3)
    (folder / "logs").mkdir()
    for name, words in {"6_1": "of an earlier job", "7_0": "of task 0", "7_10": "of task 10"}.items():
        (folder / "logs" / f"slurm-{name}.out").write_text(words)
    said = {
        task: excerpts(choose(f"7_{task}", find_submissions()), None, None)[0].text for task in range(3)
    }
    assert said == {0: "of task 0", 1: "of an earlier job", 2: ""}


def test_a_log_is_followed_into_the_next_attempt_and_to_its_end(tmp_path):
    folder = submission(tmp_path / "slurm-jobs", "1", "job")
    first = log(folder, 1, 0, "seen already\n")
    looks = 0

    def ended() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            first.write_text("seen already\none\n")
            log(folder, 2, 0, "two\nhalf a li")
        elif looks == 2:
            log(folder, 2, 0, "two\nhalf a line\n")
        return looks == 3

    follower = Follower(choose("1", find_submissions()), ended=ended)
    pieces = [text for _, text in follower.pieces(pause=0.0, asked_every=0.0)]
    assert pieces == ["one\n", "two\n", "half a line\n"]
