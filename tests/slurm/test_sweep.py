"""Members of a sweep: every combination, each with a name of its own."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.errors import UsageError
from hvc.slurm.sweep import expand, label_of, member_names, parse_grid

VALUES = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text(max_size=90)
)
KEYS = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True)
GRIDS = st.dictionaries(KEYS, st.lists(VALUES, min_size=1, max_size=3), max_size=3)


def test_a_grid_is_read_as_a_recipe_would_be():
    grid = parse_grid(["learning_rate=0.1,1.0e-3", "shuffle=true,false", "views.size=[64, 96],32"])
    assert grid == {
        "learning_rate": [0.1, 0.001],
        "shuffle": [True, False],
        "views.size": [[64, 96], 32],
    }
    assert expand({"a": [1, 2], "b": [3, 4]}) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]
    assert label_of({"views.size": 64, "seed": 1}) == "size=64,seed=1"


@pytest.mark.parametrize("text", ["seed", "seed=", "=1,2", "seed=[1", ""])
def test_what_is_no_grid(text):
    with pytest.raises(UsageError, match=r"key=value|YAML"):
        parse_grid([text])


def test_a_key_twice():
    with pytest.raises(UsageError, match="twice"):
        parse_grid(["seed=1", "seed=2"])


@given(GRIDS)
def test_every_combination_once(grid):
    members = expand(grid)
    size = 1
    for values in grid.values():
        size *= len(values)
    assert len(members) == (size if grid else 0)
    assert all(list(member) == list(grid) for member in members)
    assert all(member[key] in grid[key] for member in members for key in grid)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b.c", "d"]), VALUES, min_size=1), max_size=8))
def test_names_are_names_of_runs_and_no_two_are_the_same(members):
    from hvc.pretrain.recipe import TrainConfig

    names = member_names("run", members)
    assert len(set(names)) == len(members)
    (pattern,) = (item.pattern for item in TrainConfig.model_fields["name"].metadata)
    assert all(re.match(pattern, name) and len(name) <= 80 for name in names)
