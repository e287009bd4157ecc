"""How far an evaluation is, in one line."""

import logging

import pytest

from hvc.evaluation.labelling import frame_bar
from hvc.evaluation.labelling.frame_bar import FrameBar


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when told to."""
    now = [100.0]
    monkeypatch.setattr(frame_bar.time, "monotonic", lambda: now[0])
    return now


def test_what_was_done_before_says_nothing_of_the_speed(clock):
    bar = FrameBar(total=1000, known=400)
    assert bar.line() == "400 of 1000 frames, 0.0 frames/s"
    clock[0] += 10
    bar.advance(50)
    assert bar.line() == "450 of 1000 frames, 5.0 frames/s, 0:01:50 left"
    bar.found(200)
    assert bar.line() == "650 of 1000 frames, 5.0 frames/s, 0:01:10 left"
    bar.take_back(50)
    assert bar.line() == "600 of 1000 frames, 0.0 frames/s"


def test_a_log_gets_a_line_now_and_then(clock, caplog):
    caplog.set_level(logging.INFO)
    bar = FrameBar(total=10_000, known=0)
    for _ in range(300):
        clock[0] += 1
        bar.advance()
    lines = [record.message for record in caplog.records]
    assert len(lines) == 5
    assert lines[0] == "60 of 10000 frames, 1.0 frames/s, 2:45:40 left"
