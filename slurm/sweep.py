"""The members of a sweep: which values, and what each training run is called. Pure functions."""

import re
from collections.abc import Mapping, Sequence
from itertools import chain, count, product
from typing import Any

import yaml

from hvc.base.errors import UsageError

Values = dict[str, Any]
"""Settings of one member by key; dots reach into sections of the recipe."""
_NOT_FOR_NAMES = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 80


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """`key=a,b` after `key=a,b`, values as YAML has them; UsageError for what is no such text."""
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, raw = (part.strip() for part in text.partition("="))
        if not equals or not key or not raw:
            raise UsageError(f"--grid {text!r}: write it as key=value,value, e.g. learning_rate=0.001,0.01")
        if key in grid:
            raise UsageError(f"--grid {key}= is there twice; write all its values behind one")
        try:
            grid[key] = yaml.safe_load(f"[{raw}]")
        except yaml.YAMLError:
            raise UsageError(f"--grid {text!r}: the values are not valid YAML") from None
    return grid


def expand(grid: Mapping[str, Sequence[Any]]) -> list[Values]:
    """Every combination of one value per key, the last key changing fastest; of an empty grid nothing."""
    if not grid:
        return []
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def member_names(name: str, members: Sequence[Values]) -> list[str]:
    """Names of the members' runs: each says its values, no two are the same, all fit a folder's name."""
    names: list[str] = []
    for values in members:
        label = _NOT_FOR_NAMES.sub("-", f"{name}-{label_of(values)}")[:_LONGEST_NAME]
        numbered = (f"{label[: _LONGEST_NAME - 6]}-{number}" for number in count(2))
        names.append(next(one for one in chain([label], numbered) if one not in names))
    return names


def label_of(values: Values) -> str:
    """A member's values in short, without the sections of its keys: `learning_rate=0.001,size=64`."""
    return ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
