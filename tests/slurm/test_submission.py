"""submission.json: written by every submission, read back quickly, without anything secret."""

import json
import time

import pytest

from hvc.base.errors import HvcError
from hvc.slurm import control
from hvc.slurm.attempts import Attempt, Records
from hvc.slurm.resubmission import resized_nodes
from hvc.slurm.submission import FILE, Submission, submissions, this_command


def make(number: int = 1, **values) -> Submission:
    given = {
        "job_id": str(number),
        "stage": "train",
        "name": "hvc",
        "submitted": float(number),
        "cluster": "gpu",
        "sbatch": f"{number}_submission.sh",
        "command": "hvc submit train",
        "user": "me",
        "workdir": "/",
    }
    return Submission(**{**given, **values})


def test_it_is_read_back_as_written(tmp_path):
    first = make(array=3, parent="/pipeline", join_job_id="2", output="s3://b/c")
    first.write(tmp_path)
    assert Submission.read(tmp_path) == first
    values = json.loads((tmp_path / FILE).read_text())
    assert values["version"] == 1
    (tmp_path / FILE).write_text(json.dumps({**values, "of a later minor change": 1}))
    assert Submission.read(tmp_path) == first


def test_what_is_none_is_said(tmp_path):
    with pytest.raises(HvcError, match="hvc jobs"):
        Submission.read(tmp_path)
    make(version=2).write(tmp_path)
    with pytest.raises(HvcError, match="version 2"):
        Submission.read(tmp_path)


def test_a_thousand_are_listed_at_once_oldest_first(tmp_path):
    for number in range(1000):
        (tmp_path / f"train-{number}").mkdir()
        make(1000 - number).write(tmp_path / f"train-{number}")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / FILE).write_text('{"job_')
    (tmp_path / "other").mkdir()
    make(version=9).write(tmp_path / "other")
    begin = time.monotonic()
    found = submissions(tmp_path)
    assert time.monotonic() - begin < 10
    assert [one.job_id for _, one in found] == [str(number) for number in range(1, 1001)]
    assert found[0][0] == tmp_path / "train-999"
    assert submissions(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("asked", "more", "nodes"),
    [
        ("2", {}, 3),
        ("3", {}, None),
        ("2-4", {}, None),
        ("2", {"array": 2}, None),
        ("2", {"local": True}, None),
    ],
)
def test_nodes_of_the_last_attempt_where_the_script_asks_for_others(
    tmp_path, monkeypatch, asked, more, nodes
):
    monkeypatch.setattr(control, "node_names", {"node[1-3]": ["node1", "node2", "node3"]}.__getitem__)
    assert resized_nodes(tmp_path, make(**more)) is None, "nothing of it is there"
    (tmp_path / "1_submission.sh").write_text(f"#!/bin/bash\n#SBATCH --nodes={asked}\n#SBATCH --time=60\n")
    for number, name in ((1, "node1"), (2, "node[1-3]")):
        about = {"job_id": "1", "job_file": "job.json", "nodes": name, "started": 0.0}
        Records(tmp_path, None).write(Attempt(attempt=number, **about))
    assert resized_nodes(tmp_path, make(**more)) == nodes


def test_a_password_in_the_command_is_not_kept(monkeypatch):
    words = ["/x/hvc", "submit", "train", "a b.yaml", "tracking.uri=http://me:hunter2@host/?key=hunter2"]
    words += ["--tracking-uri", "https://me:hunter2@host:5000/path", "s3://bucket/x"]
    monkeypatch.setattr("sys.argv", words)
    assert this_command() == (
        "hvc submit train 'a b.yaml' tracking.uri=http://host/ --tracking-uri https://host:5000/path s3://bucket/x"
    )
