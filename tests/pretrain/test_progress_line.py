"""Progress of a run in a log that is no terminal: seldom, plain, and by rank 0 alone."""

import logging
import re
from itertools import pairwise

import pytest
from running import run_hvc, write_recipe

from hvc.pretrain.training import progress_line
from hvc.pretrain.training.progress_line import ProgressLine

VALUES = {"train/loss": -3.5, "perf/images_per_second": 1234.4}


def lines_of(caplog, *, total: int, done: int = 0, visible: bool = True) -> list[str]:
    """What is said of a record after every step."""
    with caplog.at_level(logging.INFO), ProgressLine(total, done, visible) as line:
        for step in range(done + 1, total + 1):
            line.update(step, VALUES)
    return [record.getMessage() for record in caplog.records if record.name.endswith("progress_line")]


def test_the_first_and_the_last_record_make_a_line_and_not_all_between(caplog):
    first, last = lines_of(caplog, total=2000, done=999)
    assert first.startswith("step 1,000/2,000 (50 %), loss -3.500, 1,234 images/s, ")
    assert first.endswith(" left")
    assert last == "step 2,000/2,000 (100 %), loss -3.500, 1,234 images/s"


def test_gaps_grow_up_to_the_longest(caplog, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: now[0])
    said = []
    with caplog.at_level(logging.INFO), ProgressLine(10_000, 0, True) as line:
        for step in range(1, 601):
            now[0] += 1.0
            before = len(caplog.records)
            line.update(step, VALUES)
            said += [step] * (len(caplog.records) - before)
    assert said[:5] == [1, 6, 16, 36, 76]
    assert {later - before for before, later in pairwise(said[4:])} == {60}
    assert caplog.records[-1].getMessage().endswith("2 h left")


def test_other_ranks_say_nothing(caplog):
    assert lines_of(caplog, total=5, visible=False) == []


@pytest.mark.slow
def test_a_redirected_run_shows_that_it_goes(dataset, tmp_path):
    recipe = write_recipe(tmp_path / "logged.yaml", dataset, steps=3)
    done = run_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pattern = r"^step (\d)/3 \(\d+ %\), loss [+-]\d\.\d{3}, \d+ images/s(, \d+ s left)?$"
    steps = re.findall(pattern, done.stderr, re.MULTILINE)
    assert steps[0][0] == "1"
    assert steps[-1][0] == "3"
