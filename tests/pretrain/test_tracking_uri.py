"""One default for where runs are recorded, which every command finds."""

import pytest

from hvc.evaluation.trunks.tracked import tracking_uri
from hvc.pretrain.tracking.run_note import RunNote
from hvc.pretrain.tracking.tracking_uri import default_uri, recorded_uri, uri_of_run
from hvc.slurm.doctor import diagnose


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, in which commands are started, without an address in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.mark.parametrize("output", ["outputs/run", "elsewhere/deep/run"])
def test_all_commands_take_the_same_wherever_the_output_is(here, output):
    expected = f"sqlite:///{here}/outputs/mlflow.db"
    folder = here / output
    found = {
        "train": uri_of_run(folder),
        "runs": default_uri(),
        "sync": recorded_uri(folder),
        "evaluate": tracking_uri(None, "runs:/abc"),
    }
    assert found == dict.fromkeys(found, expected)
    (check,) = [check for check in diagnose(here / output) if check.name == "MLflow"]
    assert f"{here}/outputs/mlflow.db" in check.found


def test_a_run_goes_on_where_it_was_recorded(here, monkeypatch):
    folder = here / "run"
    folder.mkdir()
    RunNote("sqlite:////old/mlflow.db", "hvc", "k").write(folder)
    assert uri_of_run(folder) == recorded_uri(folder) == "sqlite:////old/mlflow.db"
    assert uri_of_run(folder, "http://given") == "http://given"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:word@environment")
    assert uri_of_run(folder) == "http://user:word@environment"
    assert recorded_uri(folder) == "sqlite:////old/mlflow.db"
    RunNote("http://environment", "hvc", "k").write(folder)
    assert recorded_uri(folder) == "http://user:word@environment"
