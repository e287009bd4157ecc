"""The demo's way from photos to a table, with fewer and smaller steps."""

from pathlib import Path

import pytest
from running import make_images

from hvc.demo import tour as demo

pytestmark = pytest.mark.slow


def test_from_photos_to_a_table(tmp_path, monkeypatch):
    for name, value in {"STEPS": 2, "SIZE": 32, "BATCH": 4, "CONTEXT": 2}.items():
        monkeypatch.setattr(demo, name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    lines: list[str] = []
    values = demo.tour(tmp_path / "out", make_images(tmp_path / "mine", 12), lines.append)
    assert values["images"] == 12
    assert 0 < values["untrained_jf"] < 100
    assert 0 < values["trained_jf"] < 100
    table = "\n".join(lines)
    for words in ("J&F untrained", "J&F trained", f"runs:/{values['run_id']}", "sqlite:///", "picture"):
        assert words in table
    assert values["pictures"]
    for picture in values["pictures"]:
        assert Path(picture).stat().st_size > 10_000
        assert picture in table
