"""Errors in a configuration name the dotted key, the value and what is allowed, in no Python."""

import re

import pytest

from hvc.base.errors import UsageError
from hvc.data_prep.shard_config import ShardConfig
from hvc.pretrain.recipe import TrainConfig
from hvc.slurm.cluster import ClusterConfig

PYTHON = re.compile(
    r"Input|valid|dictionary|instance|boolean|integer|string|tuple|None|True|literal|union|\.0\b"
)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": "many"}, "steps: must be a whole number (got 'many')"),
        ({"epochs": None}, "epochs: must be a whole number (got nothing)"),
        ({"learning_rate": "fast"}, "learning_rate: must be a number (got 'fast')"),
        ({"learning_rate": 0}, "learning_rate: must be above 0 (got 0)"),
        ({"shuffle": "maybe"}, "shuffle: must be true or false (got 'maybe')"),
        ({"name": True}, "name: must be text; put it in quotes (got true)"),
        ({"name": "a b"}, "name: must match ^[A-Za-z0-9][A-Za-z0-9._-]*$ (got 'a b')"),
        (
            {"views": 256},
            "views: must be a section: `key: value` lines below it, or {key: value} (got 256)",
        ),
        ({"views": {"size": 33}}, "views.size: must be a multiple of 8 (got 33)"),
        ({"views": {"min_area": 2}}, "views.min_area: must be at most 1 (got 2)"),
        ({"engine": {"precision": "bf8"}}, "engine.precision: must be fp32, bf16 or fp16 (got 'bf8')"),
        ({"engine": {"zero_stage": 3}}, "engine.zero_stage: must be 0 or 1 (got 3)"),
        ({"data": [{"adress": "x"}]}, "unknown key 'data.0.adress'; did you mean 'address'?"),
        ({"data": [{"weight": 2}]}, "data.0.address: is missing; give it a value"),
    ],
)
def test_a_recipe(values, words):
    with pytest.raises(UsageError) as caught:
        TrainConfig.parse({"data": "x"} | values, where="r.yaml")
    lines = str(caught.value).splitlines()
    assert f"r.yaml: {words}" in lines
    assert not PYTHON.search(lines[0].replace("data.0", "data"))


def test_a_list_with_one_bad_entry_is_not_called_empty():
    bad = {"inputs": [{"source": "cocoo", "address": "x"}], "output": "y"}
    with pytest.raises(UsageError) as caught:
        ShardConfig.parse(bad, where="s")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("s: inputs.0.source: must be folder, imagenet, ")
    with pytest.raises(UsageError, match=r"inputs: needs 1 or more entries, and has 0"):
        ShardConfig.parse({"inputs": [], "output": "y"})


def test_what_may_be_secret_is_explained_without_its_value():
    with pytest.raises(UsageError, match=r"setup: must be a list") as caught:
        ClusterConfig.parse({"name": "a", "setup": "module load hunter2"})
    assert "hunter2" not in str(caught.value)
