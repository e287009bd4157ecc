"""The plans: context frames, discs, tiles."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.evaluation.propagation.context import (
    context_counts,
    context_frames,
    grid,
    half_widths,
    plan_tiles,
    within_radius,
)

sizes = st.integers(1, 40)
radii = st.floats(0.3, 30)


@settings(max_examples=50, deadline=None)
@given(reference=st.integers(0, 30), ahead=st.integers(1, 40), size=st.integers(0, 30))
def test_context_is_the_reference_and_the_frames_just_before(reference, ahead, size):
    t = reference + ahead
    frames = context_frames(reference, t, size)
    assert frames[0] == reference
    assert len(frames) == 1 + size
    assert frames[1:] == sorted(frames[1:])
    assert all(reference <= frame < t for frame in frames)
    assert set(frames[1:]) == set(range(max(reference, t - size), t))
    counts = context_counts(reference, t, size)
    assert sum(counts.values()) == size
    assert all(count == 1 for frame, count in counts.items() if frame != reference)


def test_early_frames_repeat_the_reference():
    assert context_frames(2, 4, 5) == [2, 2, 2, 2, 2, 3]
    assert context_counts(2, 4, 5) == {2: 4, 3: 1}


@pytest.mark.parametrize("radius", [5, 5.0, math.sqrt(8)])
def test_the_radius_itself_is_outside(radius):
    centre = torch.tensor([[10, 10]])
    keys = torch.tensor([[13, 14], [12, 12], [10, 15], [10, 14]])
    distances = [5, math.sqrt(8), 5, 4]
    assert within_radius(centre, keys, radius).tolist() == [[d < radius for d in distances]]


@settings(max_examples=50, deadline=None)
@given(height=sizes, width=sizes, radius=st.none() | radii | st.integers(1, 900).map(math.sqrt))
def test_half_widths_are_the_disc(height, width, radius):
    halves = half_widths(radius, height, width)
    everything = grid(slice(0, height), slice(0, width), torch.device("cpu"))
    far = height + width if radius is None else radius
    expected = within_radius(everything[:1], everything, far).view(height, width)
    inside = torch.zeros(height, width, dtype=torch.bool)
    for row, half in enumerate(halves):
        inside[row, : half + 1] = True
    assert (inside == expected).all()


@settings(max_examples=50, deadline=None)
@given(height=sizes, width=sizes, radius=st.none() | radii, side=st.integers(1, 17))
def test_equal_tiles_cover_every_query_and_hold_every_disc(height, width, radius, side):
    covered = torch.zeros(height, width, dtype=torch.bool)
    everything = grid(slice(0, height), slice(0, width), torch.device("cpu"))
    shapes = set()
    for tile in plan_tiles(height, width, half_widths(radius, height, width), side):
        covered[tile.rows, tile.columns] = True
        queries = grid(tile.rows, tile.columns, torch.device("cpu"))
        keys = grid(tile.key_rows, tile.key_columns, torch.device("cpu"))
        shapes.add((len(queries), len(keys)))
        inside = torch.zeros(height, width, dtype=torch.bool)
        inside[tile.key_rows, tile.key_columns] = True
        wanted = within_radius(queries, everything, radius or math.inf).any(0).view(height, width)
        assert not (wanted & ~inside).any()
    assert covered.all()
    assert len(shapes) == 1
