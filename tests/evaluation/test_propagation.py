"""One propagation call against the plain form: a full matrix of affinities."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dense_propagation import dense, tied
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.evaluation.propagation import tiles
from hvc.evaluation.propagation.memory import Frame, Memory
from hvc.evaluation.propagation.propagate import propagate_masks
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.propagation.tiles import propagate_tiles

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}


def random_frames(seed, count, height, width, channels, ids=3, dtype=torch.float64):
    """Features without negatives, alike from frame to frame; masks more or less hard."""
    generator = np.random.default_rng(seed)
    scene = generator.standard_normal((height, width, channels))
    features = scene + generator.standard_normal((count, height, width, channels))
    features = F.normalize(torch.from_numpy(features).abs(), dim=-1)
    masks = torch.from_numpy(generator.random((count, height, width, ids)) ** 8)
    return Memory(features.to(dtype), (masks / masks.sum(-1, keepdim=True)).to(dtype))


def compare(engine, frames, copies, protocol, tolerance):
    """Frame 0 is the query, then as many references as there are lists of copies, then the context."""
    references = [frames[1 + r] for r in range(len(copies))]
    first = 1 + len(copies)
    memory = Memory(frames.features[first:], frames.masks[first:])
    counts = [{slot: times for slot, times in enumerate(row) if times} for row in copies]
    ours = engine(frames[0].features, references, memory, counts, protocol)
    agreed = []
    for r, (reference, slots) in enumerate(zip(references, counts, strict=True)):
        context = [(memory[slot], times) for slot, times in slots.items()]
        expected = dense(frames[0].features, reference, context, protocol)
        clear = ~tied(frames[0].features, reference, context, protocol)
        assert clear.sum() >= 0.99 * clear.numel() - 1
        torch.testing.assert_close(ours[r][clear], expected[clear], rtol=0, atol=tolerance)
        agreed.append((ours[r].argmax(-1) == expected.argmax(-1)).double().mean())
    assert min(agreed) >= 0.9999


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 24),
    width=st.integers(1, 40),
    channels=st.sampled_from([5, 16, 37]),
    copies=st.integers(0, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 7), min_size=n, max_size=n).map(tuple), min_size=1, max_size=3
        )
    ),
    radius=st.sampled_from([None, 0.5, 1, 2.5, 5, 8**0.5, 12, 100]),
    top_k=st.integers(1, 20),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
    reference_window=st.booleans(),
    top_k_per_frame=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCE)),
    engine=st.sampled_from([propagate_masks, propagate_tiles]),
)
def test_equal_to_the_dense_form(seed, height, width, channels, copies, dtype, engine, **options):
    """Also where fewer positions can be compared than vote, and on maps narrower than a kernel's block."""
    count = 1 + len(copies) + len(copies[0])
    frames = random_frames(seed, count, height, width, channels, dtype=dtype)
    compare(engine, frames, copies, Protocol(**options), TOLERANCE[dtype])


@pytest.mark.parametrize("engine", [propagate_masks, propagate_tiles])
def test_equal_to_the_dense_form_at_real_sizes(engine):
    """Channels as ResNet-18 has them, a map wider than the disc, an object that appears late."""
    frames = random_frames(0, 7, 24, 54, 256, dtype=torch.float32)
    compare(engine, frames, [(1, 1, 1, 12), (0, 0, 1, 14)], Protocol(), 1e-5)


@pytest.mark.parametrize("budget", [1, 2_000_000])
def test_the_memory_budget_changes_nothing(monkeypatch, budget):
    monkeypatch.setattr(tiles, "BUDGET", budget)
    compare(propagate_tiles, random_frames(0, 6, 20, 35, 16), [(1, 1, 1, 2)], Protocol(radius=5), 1e-11)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        compare(propagate_masks, random_frames(3, 5, 40, 50, 8), [(1, 1, 3)], Protocol(radius=4), 1e-11)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", [propagate_masks, propagate_tiles])
def test_a_frame_that_did_not_change_keeps_its_masks(engine):
    frames = random_frames(1, 1, 9, 14, 64)
    hard = Frame(frames[0].features, F.one_hot(frames[0].masks.argmax(-1), 3).double())
    memory = Memory(hard.features[None], hard.masks[None])
    same = engine(hard.features, [hard], memory, [{0: 50}], Protocol(temperature=0.01))
    torch.testing.assert_close(same[0], hard.masks)


def test_half_precision_stays_near():
    """An affinity is rounded by 2^-11 at most, and its weight by that over the temperature."""
    frames = random_frames(2, 6, 20, 35, 64, dtype=torch.float32)
    half = [Frame(frame.features.half(), frame.masks) for frame in map(frames.__getitem__, range(6))]
    memory = Memory(frames.features[2:].half(), frames.masks[2:])
    counts = [dict.fromkeys(range(4), 1)]
    ours = propagate_masks(half[0].features, [half[1]], memory, counts, Protocol())
    expected = dense(frames[0].features, frames[1], [(frames[i], 1) for i in range(2, 6)], Protocol())
    assert (ours[0] - expected).abs().mean() < 0.01
    assert (ours[0].argmax(-1) == expected.argmax(-1)).double().mean() > 0.98


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equal_on_a_gpu():
    frames = random_frames(2, 6, 20, 35, 5)
    there = Memory(frames.features.cuda(), frames.masks.cuda())
    answers = [
        propagate_masks(
            place[0].features,
            [place[1]],
            Memory(place.features[2:], place.masks[2:]),
            [dict.fromkeys(range(4), 2)],
            Protocol(radius=5),
        )
        for place in (frames, there)
    ]
    torch.testing.assert_close(answers[1].cpu(), answers[0], rtol=0, atol=1e-11)
