"""Positive pairs listed on the host are those of the mask over all pairs, bit for bit."""

import tracemalloc

import numpy as np
import pytest
import torch
from crop_boxes import batches_of_boxes, official_boxes
from dense_loss import positive_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hvc.pretrain.model import pairs as module
from hvc.pretrain.model.pairs import Pairs, find_pairs

SIZES = [(4, 4), (6, 10), (9, 5), (1, 7), (8, 1), (1, 1)]
RADII = st.floats(0.05, 3)


def dense_index(boxes: tuple[Tensor, Tensor], height: int, width: int, radius: float) -> Tensor:
    return positive_mask(*boxes, height, width, radius).nonzero().T  # in the order of (sample, query, key)


def assert_same(found: Pairs, index: Tensor, samples: int) -> None:
    assert torch.equal(found.index, index)
    assert found.index.dtype == torch.int64
    assert found.counts.dtype == torch.float32
    assert found.counts.tolist() == torch.bincount(index[0], minlength=samples).tolist()


@settings(deadline=None, max_examples=300)
@given(batches_of_boxes(), st.sampled_from(SIZES), RADII)
def test_the_pairs_of_the_mask_in_order(
    boxes: tuple[Tensor, Tensor], size: tuple[int, int], radius: float
) -> None:
    assert_same(find_pairs(boxes, *size, radius), dense_index(boxes, *size, radius), len(boxes[0]))


@pytest.mark.parametrize("radius", [0.05, 0.1, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_pairs_of_real_crops(radius: float, dtype: torch.dtype) -> None:
    first, second = official_boxes(8, seed=int(radius * 100))
    boxes = first.to(dtype), second.to(dtype)
    index = dense_index(boxes, 32, 32, radius)
    assert index.numel()
    assert_same(find_pairs(boxes, 32, 32, radius), index, 8)


@settings(deadline=None)
@given(batches_of_boxes(torch.float32), st.integers(0, 2**32))
def test_the_radius_is_exclusive_at_every_distance_that_occurs(
    boxes: tuple[Tensor, Tensor], seed: int
) -> None:
    # A radius that is some pair's own distance: one bit more or less would show.
    from dense_loss import distances

    apart = distances(*boxes, 6, 10).flatten()
    apart = apart[apart.isfinite() & (apart > 0)]
    if not len(apart):
        return
    radius = float(apart[np.random.default_rng(seed).integers(len(apart))])
    assert_same(find_pairs(boxes, 6, 10, radius), dense_index(boxes, 6, 10, radius), len(boxes[0]))


@settings(deadline=None)
@given(batches_of_boxes(), RADII)
def test_swapped_is_the_way_back(boxes: tuple[Tensor, Tensor], radius: float) -> None:
    back = find_pairs((boxes[1], boxes[0]), 6, 10, radius)
    swapped = find_pairs(boxes, 6, 10, radius).swapped()
    order = np.lexsort(swapped.index.numpy()[::-1])
    assert torch.equal(swapped.index[:, order], back.index)
    assert torch.equal(swapped.counts, back.counts)
    assert swapped.size == back.size == (6, 10)


@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_pieces_of_any_size_join(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    boxes = official_boxes(6)
    whole = find_pairs(boxes, 8, 12, 1.0)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    pieces = find_pairs(boxes, 8, 12, 1.0)
    assert torch.equal(pieces.index, whole.index)


@pytest.mark.parametrize(
    "box", [(0.2, 0.2, 0.2, 0.2), (float("nan"),) * 4, (0.0, 0.0, float("inf"), 1.0)], ids=str
)
def test_no_pairs_where_a_distance_is_not_a_number(box: tuple[float, ...]) -> None:
    boxes = torch.tensor([box, (0.0, 0.0, 1.0, 1.0)])
    found = find_pairs((boxes, boxes), 4, 4, 0.1)
    assert found.counts.tolist() == [0, 16]
    assert found.index[0].tolist() == [1] * 16


def test_an_empty_batch_has_no_pairs() -> None:
    none = torch.empty(0, 4)
    found = find_pairs((none, none), 4, 4, 0.1)
    assert found.index.shape == (3, 0)
    assert found.counts.shape == (0,)


def test_memory_is_that_of_what_is_found() -> None:
    # So wide a radius that all 1,048,576 pairs of each sample are positive.
    boxes = official_boxes(3)
    tracemalloc.start()
    try:
        found = find_pairs(boxes, 32, 32, 1e6)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.counts.tolist() == [1024.0**2] * 3
    assert peak < 3 * found.index.numel() * 8


@pytest.mark.gpu
def test_the_way_to_a_gpu_does_not_wait_for_it() -> None:
    found = find_pairs(official_boxes(8), 32, 32, 0.5)
    found.to(torch.device("cuda"))  # the first call allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = found.to(torch.device("cuda"))
        back = there.swapped()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(there.index.cpu(), found.index)
    assert torch.equal(back.index.cpu(), found.swapped().index)
