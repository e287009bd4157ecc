"""The loss over positive pairs equals the one over all pairs: values, gradients, in every layout."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from allocations import temporary_peak
from crop_boxes import batches_of_boxes, official_boxes
from dense_loss import dense_pair_terms, positive_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from hvc.base.errors import HvcError
from hvc.pretrain.model import loss as module
from hvc.pretrain.model.loss import PairTerms, hybrid_loss, pair_terms
from hvc.pretrain.model.network import spread
from hvc.pretrain.model.pairs import Pairs, find_pairs

SIZES = [(4, 4), (6, 10), (9, 5), (1, 7), (8, 1), (1, 1)]
FORMATS = [torch.contiguous_format, torch.channels_last]
Boxes = tuple[Tensor, Tensor]


class Maps(NamedTuple):
    """What the networks give for one direction."""

    query: Tensor
    key: Tensor
    forward: Tensor
    backward: Tensor

    def to(self, dtype: torch.dtype | torch.device) -> "Maps":
        return Maps(*(x.detach().to(dtype) for x in self))


def maps(
    samples: int,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    formats: tuple[torch.memory_format, ...] = (torch.contiguous_format,) * 4,
    channels: int = 16,
    seed: int = 0,
) -> Maps:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for count, layout in zip((channels, channels, 2, 2), formats, strict=True):
        values = torch.randn(samples, count, *size, generator=generator, dtype=torch.float64)
        values = F.normalize(values, dim=1) if count == channels else 3 * values
        made.append(values.to(dtype).contiguous(memory_format=layout))
    return Maps(*made)


def evaluate(
    terms: Callable[[Tensor, Tensor, Tensor, Tensor], PairTerms], given: Maps, weights: Tensor
) -> tuple[PairTerms, list[Tensor]]:
    """Terms, and the gradients of query, forward and backward under weights [2, B] of every sample's."""
    inputs = [x.detach().requires_grad_() for x in (given.query, given.forward, given.backward)]
    found = terms(inputs[0], given.key, inputs[1], inputs[2])
    total = (found.static * weights[0]).sum() + (found.dynamic * weights[1]).sum()
    return found, list(torch.autograd.grad(total, inputs))


def ours(given: Maps, pairs: Pairs, weights: Tensor) -> tuple[PairTerms, list[Tensor]]:
    return evaluate(lambda q, k, f, b: pair_terms(q, k, pairs, f, b), given, weights)


def dense(given: Maps, mask: Tensor, weights: Tensor) -> tuple[PairTerms, list[Tensor]]:
    return evaluate(lambda q, k, f, b: dense_pair_terms(q, k, mask, f, b), given, weights)


def close(a: Tensor, b: Tensor, atol: float, rtol: float = 0.0) -> None:
    torch.testing.assert_close(a.double(), b.double(), atol=atol, rtol=rtol)


def weights_of(samples: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2, samples)))


@settings(deadline=None, max_examples=200)
@given(
    batches_of_boxes(),
    st.sampled_from(SIZES),
    st.floats(0.05, 3),
    st.tuples(*[st.sampled_from(FORMATS)] * 4),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 2**32),
)
def test_terms_and_gradients_of_the_dense_form(
    boxes: Boxes,
    size: tuple[int, int],
    radius: float,
    formats: tuple[torch.memory_format, ...],
    dtype: torch.dtype,
    seed: int,
) -> None:
    samples = len(boxes[0])
    inputs, weights = maps(samples, size, dtype, formats, seed=seed), weights_of(samples, seed)
    found, gradients = ours(inputs, find_pairs(boxes, *size, radius), weights)
    mask = positive_mask(*boxes, *size, radius)
    expected, wanted = dense(inputs.to(torch.float64), mask, weights)
    exact = dtype == torch.float64
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        close(a, b, 1e-12 if exact else 1e-6)
    for a, b in zip(gradients, wanted, strict=True):
        assert a.dtype == dtype
        close(a, b, 1e-12 if exact else 1e-5, 1e-12 if exact else 1e-5)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_the_size_of_training(layout: torch.memory_format) -> None:
    boxes = official_boxes(8)
    inputs, weights = maps(8, (32, 32), formats=(layout,) * 4, channels=256), weights_of(8)
    found, gradients = ours(inputs, find_pairs(boxes, 32, 32), weights)
    expected, wanted = dense(inputs, positive_mask(*boxes, 32, 32), weights)
    for a, b in zip(found, expected, strict=True):
        close(a, b, 1e-6)
    of = (inputs.query, inputs.forward, inputs.backward)
    for a, b, x in zip(gradients, wanted, of, strict=True):
        close(a, b, 1e-5)
        assert a.stride() == x.stride()


def test_samples_without_pairs_are_zero_and_ask_for_nothing() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.0, 0.0, 1.0, 1.0]])
    others = torch.tensor([[0.8, 0.8, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    found, gradients = ours(maps(2, (4, 4)), find_pairs((boxes, others), 4, 4), torch.ones(2, 2))
    assert found.static[0] == found.dynamic[0] == 0
    for gradient in gradients:
        assert not gradient[0].any()
        assert gradient[1].any()


def test_a_batch_without_any_pair_can_be_learnt_from() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.2, 0.2]]), torch.tensor([[0.8, 0.8, 1.0, 1.0]])
    found, gradients = ours(maps(1, (4, 4)), find_pairs(boxes, 4, 4), torch.ones(2, 1))
    assert found.static.tolist() == found.dynamic.tolist() == [0]
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("scale", [0.0, 1e-13, 1e-11])
def test_motion_vectors_of_hardly_any_length(scale: float) -> None:
    # Below 1e-12 `normalize` divides by 1e-12 instead of the length, and its gradient changes.
    boxes = official_boxes(4)
    inputs, weights = maps(4, (6, 6), torch.float64), weights_of(4)
    inputs.forward.mul_(scale)
    found, gradients = ours(inputs, find_pairs(boxes, 6, 6, 1.0), weights)
    expected, wanted = dense(inputs, positive_mask(*boxes, 6, 6, 1.0), weights)
    close(found.dynamic, expected.dynamic, 1e-12)
    for a, b in zip(gradients, wanted, strict=True):
        close(a, b, 1e-12 * float(b.abs().max()))


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_gradcheck(layout: torch.memory_format) -> None:
    inputs = maps(3, (3, 4), torch.float64, (layout,) * 4, channels=3)
    pairs = find_pairs(official_boxes(3), 3, 4, 1.0)
    assert pairs.index.numel()
    given = [x.requires_grad_() for x in (inputs.query, inputs.forward, inputs.backward)]
    assert torch.autograd.gradcheck(lambda q, f, b: tuple(pair_terms(q, inputs.key, pairs, f, b)), given)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_the_same_bits_again(layout: torch.memory_format) -> None:
    # Many pairs at each position, and threads that could add them in another order.
    threads = torch.get_num_threads()
    inputs, weights = maps(8, (16, 16), formats=(layout,) * 4, channels=64), weights_of(8)
    pairs = find_pairs(official_boxes(8), 16, 16, 2.0)
    assert pairs.index.shape[1] > 10_000
    try:
        torch.set_num_threads(4)
        first, gradients = ours(inputs, pairs, weights)
        for _ in range(5):
            again, others = ours(inputs, pairs, weights)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
            assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("chunk", [1, 16, 16 * 7, 16 * 100])
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_pieces_of_any_size(
    monkeypatch: pytest.MonkeyPatch, chunk: int, layout: torch.memory_format
) -> None:
    boxes = official_boxes(3)
    inputs, weights = maps(3, (5, 6), torch.float64, (layout,) * 4), weights_of(3)
    expected, wanted = dense(inputs, positive_mask(*boxes, 5, 6, 1.0), weights)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    found, gradients = ours(inputs, find_pairs(boxes, 5, 6, 1.0), weights)
    for a, b in zip([*found, *gradients], [*expected, *wanted], strict=True):
        close(a, b, 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_half_precision_is_only_how_maps_are_held(dtype: torch.dtype, layout: torch.memory_format) -> None:
    # Many pairs share a position: sums held in half precision would be off by far more than a rounding.
    inputs, weights = maps(4, (12, 12), dtype, (layout,) * 4), weights_of(4).float()
    pairs = find_pairs(official_boxes(4), 12, 12, 3.0)
    found, gradients = ours(inputs, pairs, weights)
    expected, wanted = ours(inputs.to(torch.float32), pairs, weights)
    assert all(a.dtype == torch.float32 for a in found)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for a, b in zip(gradients, wanted, strict=True):
        assert a.dtype == dtype
        assert torch.equal(a, b.to(dtype))


def test_maps_of_mixed_precision() -> None:
    # As autocast gives them: embeddings in fp32 after normalisation, motion vectors in bf16.
    inputs, pairs, weights = maps(4, (6, 6)), find_pairs(official_boxes(4), 6, 6, 1.0), weights_of(4)
    mixed = inputs._replace(forward=inputs.forward.bfloat16(), backward=inputs.backward.bfloat16())
    found, gradients = ours(mixed, pairs, weights)
    expected, wanted = ours(mixed.to(torch.float32), pairs, weights)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert [gradient.dtype for gradient in gradients] == [torch.float32, torch.bfloat16, torch.bfloat16]
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(gradients, wanted, strict=True))


@pytest.mark.parametrize(
    "odd",
    [
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),  # columns first
        lambda x: torch.cat([x, x], dim=1)[:, : x.shape[1]],
        lambda x: torch.cat([x, x], dim=3)[..., : x.shape[3]],
        lambda x: x.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3),
        lambda x: x[:1].expand(x.shape),
        lambda x: x[:, :, :1, :1].expand(x.shape),
    ],
)
def test_maps_that_lie_oddly_in_memory(odd: Callable[[Tensor], Tensor]) -> None:
    boxes, weights = official_boxes(4), weights_of(4)
    inputs = Maps(*(odd(x) for x in maps(4, (5, 6), torch.float64)))
    found, gradients = ours(inputs, find_pairs(boxes, 5, 6, 1.0), weights)
    expected, wanted = dense(inputs, positive_mask(*boxes, 5, 6, 1.0), weights)
    for a, b in zip([*found, *gradients], [*expected, *wanted], strict=True):
        close(a, b, 1e-12)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_nothing_of_the_size_of_a_map_is_made(layout: torch.memory_format) -> None:
    boxes, weights = official_boxes(8), torch.ones(2, 8)
    inputs = maps(8, (32, 32), formats=(layout,) * 4, channels=256)
    pairs, mask = find_pairs(boxes, 32, 32), positive_mask(*boxes, 32, 32)
    one_map = inputs.query.numel() * 4
    assert temporary_peak(lambda: ours(inputs, pairs, weights)[1]) < one_map / 4
    assert temporary_peak(lambda: dense(inputs, mask, weights)[1]) > 8 * one_map  # it can be seen


def test_memory_is_bounded_however_many_pairs_there_are() -> None:
    inputs, weights = maps(1, (16, 16), channels=256), torch.ones(2, 1)
    pairs = find_pairs(official_boxes(1), 16, 16, 1e6)
    assert pairs.index.shape[1] == 256**2  # gathered at once: 67 MB, three times
    assert temporary_peak(lambda: ours(inputs, pairs, weights)[1]) < 20e6


def test_a_sum_of_a_million_terms_keeps_its_precision() -> None:
    inputs = maps(1, (32, 32))
    inputs.key.copy_(inputs.query)
    pairs = find_pairs(official_boxes(1), 32, 32, 1e6)
    assert pairs.index.shape[1] == 1024**2
    found = pair_terms(inputs.query, inputs.key, pairs, inputs.forward, inputs.forward)
    everywhere = torch.ones(1, 1024, 1024, dtype=torch.bool)
    exact = inputs.to(torch.float64)
    expected = dense_pair_terms(exact.query, exact.key, everywhere, exact.forward, exact.forward)
    for a, b in zip(found, expected, strict=True):
        close(a, b, 1e-7)


def test_pairs_of_other_maps_are_refused() -> None:
    inputs, pairs = maps(2, (6, 10)), find_pairs(official_boxes(2), 10, 6)
    with pytest.raises(HvcError, match=r"maps are 6 x 10.*maps of 10 x 6.*output stride 8"):
        pair_terms(inputs.query, inputs.key, pairs, inputs.forward, inputs.backward)


def test_hybrid_loss_is_best_at_minus_four() -> None:
    terms = PairTerms(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]))
    assert hybrid_loss(terms) == -4
    assert hybrid_loss(terms, static_weight=0) == hybrid_loss(terms, dynamic_weight=0) == -2
    half = PairTerms(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0]))  # the second has no pairs
    assert hybrid_loss(half) == -2


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(2, 20), st.integers(0, 2**32))
def test_spread_is_the_variance_of_unit_vectors(samples: int, channels: int, seed: int) -> None:
    embedding = maps(samples, (3, 5), torch.float64, channels=channels, seed=seed).query
    vectors = embedding.permute(0, 2, 3, 1).reshape(-1, channels)
    variance = vectors.var(0, correction=0).sum()
    close(spread(embedding), variance, 1e-12)
    assert spread(embedding[:1, :, :1, :1].expand(2, -1, 3, 5)) <= 1e-12  # all alike: a collapse


@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_nothing_waits_for_a_value(layout: torch.memory_format) -> None:
    # Tensors of the meta device have no values: asking for one (a GPU would be waited for) fails.
    device = torch.device("meta")
    inputs = maps(4, (6, 6), formats=(layout,) * 4).to(device)
    pairs = find_pairs(official_boxes(4), 6, 6, 1.0).to(device)
    for there in (pairs, pairs.swapped()):
        found, gradients = ours(inputs, there, torch.ones(2, 4, device=device))
        assert [x.shape for x in found] == [(4,), (4,)]
        assert [x.shape for x in gradients] == [x.shape for x in (inputs.query, *inputs[2:])]
    with pytest.raises(RuntimeError):
        spread(inputs.query).item()


@pytest.mark.gpu
@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("radius", [0.1, 1.0])
def test_on_a_gpu_without_waiting_for_it(layout: torch.memory_format, radius: float) -> None:
    boxes, device = official_boxes(8), torch.device("cuda")
    inputs, weights = maps(8, (32, 32), formats=(layout,) * 4, channels=256), weights_of(8)
    pairs = find_pairs(boxes, 32, 32, radius)
    expected, wanted = ours(inputs, pairs, weights)
    there, on_device, weights = pairs.to(device), inputs.to(device), weights.to(device)
    ours(on_device, there, weights)  # the first call allocates and loads kernels
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, gradients = ours(on_device, there, weights)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip([*found, *gradients], [*expected, *wanted], strict=True):
        assert a.stride() == b.stride()
        close(a.cpu(), b, 1e-5)
