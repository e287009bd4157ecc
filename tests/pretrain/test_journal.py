"""The journal: whole lines whatever happens, and nothing twice."""

import json
import logging
import math
import resource
import statistics
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.pretrain.tracking.journal import Journal, metric_records, read_lines
from hvc.pretrain.tracking.journal_state import JournalState


def contents(path: Path) -> list[dict]:
    return [line.content for line in read_lines(path)]


@given(st.lists(st.text(max_size=20), max_size=20), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_goes_on_with_whole_lines(texts, share):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        journal = Journal(path)
        for text in texts:
            journal.append("note", text=text)
        journal.close()
        whole = contents(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        kept = data[: int(share * len(data))].count(b"\n")
        journal = Journal(path)
        journal.append("note", text="after")
        journal.close()
        found = contents(path)
        assert found[:-1] == whole[:kept]
        assert found[-1]["text"] == "after"


def test_numbers_that_json_lacks_come_back(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append("metrics", step=3, values={"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1})
    text = (tmp_path / "j").read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    (record,) = metric_records(tmp_path / "j")
    assert math.isnan(record.pop("a"))
    assert abs(record.pop("time") - time.time()) < 60
    assert record == {"step": 3, "b": math.inf, "c": -math.inf, "d": 0.1}


@pytest.mark.parametrize("damage", [b"\x00" * 40, b'{"kind": "metrics", "time": 1}', b"[1, 2]", b"{"])
def test_a_damaged_line_costs_only_itself(tmp_path, damage):
    journal = Journal(tmp_path / "j")
    for step in (1, 2, 3):
        journal.append("metrics", step=step, values={"a": 0.0})
    lines = (tmp_path / "j").read_bytes().splitlines()
    lines[1] = damage
    (tmp_path / "j").write_bytes(b"\n".join(lines) + b"\n")
    assert [record["step"] for record in metric_records(tmp_path / "j")] == [1, 3]
    assert [line["kind"] for line in contents(tmp_path / "j")] == ["metrics", "damaged", "metrics"]


def test_a_full_disk_ends_nothing_and_loses_nothing(tmp_path, caplog):
    """For real: the kernel takes a part of a line and refuses the rest."""
    caplog.set_level(logging.INFO)
    journal = Journal(tmp_path / "j")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        for step in range(40):
            journal.append("metrics", step=step, values={"train/loss": float(step)})
        waiting = journal.waiting
        refused = (tmp_path / "j").read_bytes()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert waiting > 20
    assert refused.endswith(b"}\n")
    assert len(refused) > 800
    journal.append("metrics", step=40, values={"train/loss": 40.0})
    assert journal.waiting == 0
    assert [record["step"] for record in metric_records(tmp_path / "j")] == list(range(41))
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "free some space" in warnings[0].getMessage()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "j").mkdir()
    with pytest.raises(HvcError, match="choose another output"):
        Journal(tmp_path / "j")


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_steps_made_again_are_recorded_once_and_none_is_missing(restarts, every):
    """Attempts that begin at any step the one before has reached, each going on a little."""
    state, recorded, reached = JournalState(), [], 0
    for restart in restarts:
        begin = min(restart, reached)
        for step in range(begin + 1, begin + 12):
            values = {"loss": 0.0} if step % every == 0 else {}
            fresh = state.fresh(step, values)
            if fresh:
                state.add({"kind": "metrics", "step": step, "values": fresh})
                recorded.append(step)
        reached = max(reached, begin + 11)
    assert recorded == [step for step in range(1, reached + 1) if step % every == 0]


def test_a_metric_that_comes_later_is_not_mistaken_for_a_repetition():
    state = JournalState()
    state.add({"kind": "metrics", "step": 5, "values": {"a": 0.0}})
    assert state.fresh(5, {"a": 1.0, "b": 2.0}) == {"b": 2.0}


def test_an_append_takes_microseconds(tmp_path):
    journal = Journal(tmp_path / "j")
    values = {f"train/metric-{number}": float(number) for number in range(30)}
    seconds = []
    for step in range(500):
        begin = time.perf_counter()
        journal.append("metrics", step=step, values=values)
        seconds.append(time.perf_counter() - begin)
    assert statistics.median(seconds) < 1e-3  # about 40 us; a flush to the disk would take more
