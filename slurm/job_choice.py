"""Which submission somebody means: by job id, folder, name, run id, their beginning, or by its output."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvc.base.errors import UsageError
from hvc.pretrain.tracking.run_note import RunNote
from hvc.slurm.jobs import JobRow, find_submissions, list_jobs
from hvc.slurm.script import submission_script
from hvc.slurm.submission import FILE, Submission

Found = Sequence[tuple[Path, Submission]]
_SHORTEST_RUN_ID = 4


@dataclass(frozen=True)
class Chosen:
    """A submission, or one task of its array."""

    folder: Path
    submission: Submission
    task: int | None = None
    join: bool = False
    """Whether it is the job alone that joins the parts of the array."""

    @property
    def job_id(self) -> str:
        """As Slurm's commands take it: `7`, or `7_3` for one task; an array's own id means all of it."""
        if self.join:
            return str(self.submission.join_job_id)
        return self.submission.job_id if self.task is None else f"{self.submission.job_id}_{self.task}"

    def means(self, row: JobRow) -> bool:
        """Whether a job of the submission is among what was chosen."""
        if self.join or self.task is not None:
            return row.job_id == self.job_id
        return True


def choose(text: str, found: Found) -> Chosen:
    """The submission that `text` means.

    Args:
        text: a job id (`7`, `7_3`), also one from before `hvc requeue`, a submission's folder, its name,
            the run's name or id, the last part of its output, or what only one of these begins with. Of
            several with the same name it is the one that waits or runs.
        found: folders and submissions to choose from.

    Raises UsageError for none, or several.
    """
    folder = Path(text).expanduser()
    if (folder / FILE).is_file():
        return Chosen(folder.resolve(), Submission.read(folder))
    if re.fullmatch(r"\d+(_\d+)?", text):
        by_id = _by_job_id(text, found) or _by_former_id(text, found)
        if by_id is not None:
            return by_id
    for fits in _ways(text):
        matches = [pair for pair in found if fits(*pair)]
        if matches:
            return Chosen(*_only(text, matches))
    raise UsageError(
        f"no job {text!r} among {len(found)} submissions; `hvc jobs --all` lists them, and --folder looks "
        "below another folder than those that you submitted to"
    )


def choose_all(text: str, found: Found) -> list[Chosen]:
    """All submissions of the pipeline or sweep that `text` names, newest first, or the one that it means.

    Args:
        text: the name of a pipeline or sweep, or its folder; else as for `choose`.
        found: folders and submissions to choose from, newest first.

    Raises UsageError for none, or where a submission has the pipeline's name, also as its job id.
    """
    place = Path(text).expanduser().resolve()
    members = [
        (folder, one)
        for folder, one in found
        if one.parent
        and (text in (one.group, Path(one.parent).name) or Path(one.parent).resolve() == place)
    ]
    folders = sorted({one.parent for _, one in members if one.parent})
    if not members:
        return [choose(text, found)]
    same = [
        (folder, one)
        for folder, one in found
        if text in (folder.name, one.name, one.job_id, one.join_job_id)
    ]
    if len(folders) > 1 or same:
        several = [*folders, *(str(folder) for folder, _ in same)]
        raise UsageError(f"{text!r} may mean {', '.join(several)}; give the folder, or a job id")
    return [Chosen(*pair) for pair in members]


def _by_job_id(text: str, found: Found) -> Chosen | None:
    job_id, _, task = text.partition("_")
    matches = [pair for pair in found if job_id in (pair[1].job_id, pair[1].join_job_id)]
    if not matches:
        return None
    # Another cluster, or one set up anew, has jobs with the same ids.
    folder, submission = _only(text, matches)
    return _part(folder, submission, job_id, task, join=job_id == submission.join_job_id)


def _by_former_id(text: str, found: Found) -> Chosen | None:
    """By an id from before it was submitted again: the scripts of all its ids are in its folder."""
    job_id, _, task = text.partition("_")
    matches = [pair for pair in found if submission_script(pair[0], job_id).is_file()]
    if not matches:
        return None
    folder, submission = _only(text, matches)
    own = next(folder.glob(f"{job_id}_*submitted.pkl"), None)
    join = submission.join_job_id is not None and own is not None and own.name == f"{job_id}_submitted.pkl"
    return _part(folder, submission, job_id, task, join=join)


def _part(folder: Path, submission: Submission, job_id: str, task: str, *, join: bool) -> Chosen:
    """What an id means of a submission; UsageError for a task that there is not."""
    if not task:
        return Chosen(folder, submission, join=join)
    if submission.array is None or int(task) >= submission.array:
        has = f"tasks 0 to {submission.array - 1}" if submission.array else "no tasks"
        raise UsageError(f"job {job_id} has {has}; `hvc jobs --all` lists them")
    return Chosen(folder, submission, int(task))


def _ways(text: str) -> tuple[Callable[[Path, Submission], bool], ...]:
    """Tests in the order in which they count: what is exact goes before a beginning."""
    ways: list[Callable[[Path, Submission], bool]] = [
        lambda folder, one: text in (folder.name, one.name),
        lambda _, one: _output_name(one) == text,
        lambda folder, one: folder.name.startswith(text) or one.name.startswith(text),
    ]
    if len(text) >= _SHORTEST_RUN_ID:
        ways.append(lambda _, one: _run_id(one).startswith(text))
    return tuple(ways)


def _output_name(submission: Submission) -> str:
    return (submission.output or "").rstrip("/").rpartition("/")[2]


def _run_id(submission: Submission) -> str:
    if submission.output is None or "://" in submission.output:
        return ""
    note = RunNote.read(Path(submission.output))
    return (note.run_id if note else None) or ""


def _only(text: str, matches: Found) -> tuple[Path, Submission]:
    if len(matches) == 1:
        return matches[0]
    alive = [group for group in list_jobs(matches).groups if group.alive]
    if len(alive) == 1:
        return alive[0].folder, alive[0].submission
    several = ", ".join(f"{submission.job_id} ({folder.name})" for folder, submission in matches[:8])
    raise UsageError(
        f"{text!r} may mean {len(matches)} submissions: {several}"
        f"{', ...' if len(matches) > 8 else ''}; give the job id, or the folder"
    )


def all_below(roots: Sequence[Path]) -> list[tuple[Path, Submission]]:
    """Submissions below given folders, newest first; UsageError for a folder that is not there."""
    for root in roots:
        if not root.is_dir():
            raise UsageError(f"no folder {root}; give the one that `folder` in the cluster's file names")
    return find_submissions(roots)
