"""The results folder: a place that takes none is a person's to put right."""

import pytest

from hvc.base.errors import PlaceError, UsageError
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.results import results_of
from hvc.evaluation.trunks.method import resolve_method


@pytest.mark.parametrize("place", ["/proc/x/results", "file"])
def test_an_output_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    values = {"checkpoint": "baseline:pixels", "benchmark": "folder", "data": str(tmp_path)}
    config = EvaluateConfig.parse(values | {"output": str(tmp_path / place)})
    with pytest.raises(PlaceError, match=r"cannot write to .*; choose another --output") as caught:
        results_of(config, resolve_method(config, "sqlite:///nowhere.db"))
    assert isinstance(caught.value, UsageError)
