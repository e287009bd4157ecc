"""A run is found by the beginning of its id, at a real database."""

import pytest

from hvc.base.errors import HvcError, UsageError
from hvc.evaluation.trunks.resolve import resolve
from hvc.pretrain.tracking.mlflow_client import connect
from hvc.pretrain.tracking.run_ids import whole_id


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Address, client, and ids of enough runs that two begin alike, in two experiments."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('ids')}/mlflow.db"
    client = connect(uri)
    other = client.create_experiment("other")
    made = [client.create_run(where, run_name="x").info.run_id for where in ("0", other) for _ in range(9)]
    return uri, client, made


def test_a_beginning_of_one_run_is_its_id(runs):
    uri, client, made = runs
    for run_id in made:
        short = next(n for n in range(1, 33) if sum(one.startswith(run_id[:n]) for one in made) == 1)
        assert whole_id(client, run_id[:short], uri) == run_id
        assert whole_id(client, run_id, uri) == run_id


def test_a_beginning_of_several_runs_names_them(runs):
    uri, client, made = runs
    first = next(one[0] for one in made if sum(other[0] == one[0] for other in made) > 1)
    with pytest.raises(UsageError, match=rf"several runs begin with {first}: {first}.*\(x\), {first}"):
        whole_id(client, first, uri)


def test_what_no_run_begins_with_is_said_where_it_was_written(runs):
    uri, client, made = runs
    missing = next(f"{n:08x}" for n in range(99) if not any(one.startswith(f"{n:08x}") for one in made))
    assert whole_id(client, missing, uri) == missing
    with pytest.raises(HvcError, match=f"no run {missing} at .*check the id"):
        resolve(f"runs:/{missing}", uri)


def test_evaluation_takes_a_beginning(runs):
    uri, _, made = runs
    with pytest.raises(HvcError, match="the run has no complete checkpoint yet"):
        resolve(f"runs:/{made[0][:12]}", uri)
