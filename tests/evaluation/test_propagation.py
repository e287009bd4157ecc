"""One propagation call against the plain form: a full matrix of affinities."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.evaluation import propagation
from hvc.evaluation.propagation import Frame, propagate_masks


def dense(query, reference, context, *, radius, top_k, temperature):
    """Every query position against every position of every frame, repeated frames written out."""
    height, width, channels = query.shape
    frames = [reference] + [frame for frame, copies in context for _ in range(copies)]
    features = torch.stack([frame.features for frame in frames]).view(len(frames), -1, channels)
    masks = torch.cat([frame.masks.flatten(0, 1) for frame in frames])
    affinity = torch.einsum("qc,nkc->qnk", query.view(-1, channels), features)
    row, column = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    squared = (row[:, None] - row) ** 2 + (column[:, None] - column) ** 2
    affinity[:, 1:] = affinity[:, 1:].masked_fill((squared >= radius**2)[:, None], -1e10)
    best, index = (affinity.flatten(1) / temperature).topk(min(top_k, len(masks)))
    return torch.einsum("qk,qkm->qm", best.softmax(1), masks[index]).view(height, width, -1)


def random_frame(generator, height, width, channels=5, ids=3):
    features = torch.from_numpy(generator.standard_normal((height, width, channels)))
    masks = torch.from_numpy(generator.random((height, width, ids)))
    return Frame(F.normalize(features, dim=-1), masks / masks.sum(-1, keepdim=True))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    copies=st.lists(st.integers(1, 7), max_size=4),
    radius=st.sampled_from([0.5, 1, 2.5, 4, 12, 100]),
    top_k=st.integers(1, 20),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
)
def test_equal_to_the_dense_form(seed, height, width, copies, radius, top_k, temperature):
    generator = np.random.default_rng(seed)
    query = random_frame(generator, height, width).features
    reference = random_frame(generator, height, width)
    context = [(random_frame(generator, height, width), count) for count in copies]
    options = {"radius": radius, "top_k": top_k, "temperature": temperature}
    ours = propagate_masks(query, reference, context, **options)
    torch.testing.assert_close(ours, dense(query, reference, context, **options), rtol=0, atol=1e-12)


@pytest.mark.parametrize("budget", [1, 20_000, 1 << 25])
def test_the_memory_budget_changes_nothing(monkeypatch, budget):
    generator = np.random.default_rng(0)
    query, reference, *context = (random_frame(generator, 20, 35) for _ in range(6))
    options = {"radius": 5, "top_k": 15, "temperature": 0.1}
    monkeypatch.setattr(propagation, "SCORES_PER_TILE", budget)
    pairs = [(frame, 1) for frame in context]
    ours = propagate_masks(query.features, reference, pairs, **options)
    expected = dense(query.features, reference, pairs, **options)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_a_frame_that_did_not_change_keeps_its_masks():
    generator = np.random.default_rng(1)
    frame = random_frame(generator, 9, 14, channels=64)
    hard = Frame(frame.features, F.one_hot(frame.masks.argmax(-1), 3).double())
    same = propagate_masks(hard.features, hard, [(hard, 50)], radius=12, top_k=15, temperature=0.01)
    torch.testing.assert_close(same, hard.masks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_equal_on_a_gpu():
    generator = np.random.default_rng(2)
    frames = [random_frame(generator, 20, 35) for _ in range(6)]
    options = {"radius": 5, "top_k": 15, "temperature": 0.1}
    there = [Frame(frame.features.cuda(), frame.masks.cuda()) for frame in frames]
    answers = [
        propagate_masks(q.features, reference, [(frame, 2) for frame in context], **options)
        for q, reference, *context in (frames, there)
    ]
    torch.testing.assert_close(answers[1].cpu(), answers[0], rtol=0, atol=1e-12)
