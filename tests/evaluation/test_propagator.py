"""The loop's state: references, late objects, what is remembered."""

import pytest
import torch
import torch.nn.functional as F

from hvc.evaluation.propagator import Propagator, upsample
from hvc.evaluation.protocol import Protocol

H, W = 48, 64


def features(frames=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(frames, 16, 6, 8, generator=generator, dtype=torch.float64), dim=1)


def masks(*boxes):
    """Background first, then one box (row, row, column, column) per object."""
    given = torch.zeros(1 + len(boxes), H, W, dtype=torch.bool)
    for channel, box in enumerate(boxes, 1):
        if box is not None:
            given[channel, box[0] : box[1], box[2] : box[3]] = True
    given[0] = ~given[1:].any(0)
    return given


def test_the_first_frame_answers_with_its_own_mask_on_the_grid():
    given = masks((0, 24, 0, 64))
    soft = Propagator(Protocol(), 2).step(features()[0], given)
    assert soft.shape == (6, 8, 2)
    torch.testing.assert_close(soft.sum(-1), torch.ones(6, 8, dtype=torch.float64))
    labels, confidence = upsample(soft, (H, W))
    assert (labels == given[1]).double().mean() > 0.9
    assert confidence.min() >= 0.5


def test_nothing_is_predicted_before_anything_is_given():
    propagator = Propagator(Protocol(), 2)
    for feature in features(3):
        assert not propagator.step(feature).any()
    assert propagator.step(features()[0], masks((0, 24, 0, 64))).any()


@pytest.mark.parametrize("context", [0, 1, 3])
def test_memory_is_bounded_by_the_context(context):
    propagator = Propagator(Protocol(context=context), 2)
    for t, feature in enumerate(features(8)):
        propagator.step(feature, masks((0, 24, 0, 32)) if t == 0 else None)
        assert len(propagator._recent) == min(context, t + 1)


def test_a_static_video_keeps_its_labels():
    propagator = Propagator(Protocol(temperature=0.01), 3)
    still = features()[0]
    first = propagator.step(still, masks((0, 24, 0, 30), (24, 48, 30, 64)))
    for _ in range(5):
        last = propagator.step(still)
    assert (last.argmax(-1) == first.argmax(-1)).all()


def test_a_late_object_is_drawn_over_and_followed_from_there():
    propagator = Propagator(Protocol(temperature=0.01), 3)
    still = features()[0]
    propagator.step(still, masks((0, 24, 0, 64), None))
    assert not propagator.step(still)[..., 2].any()
    late = masks((0, 24, 0, 64), (30, 48, 0, 64))
    drawn = propagator.step(still, late)
    assert (upsample(drawn, (H, W))[0] == 2).double().mean() == pytest.approx(18 / 48, abs=0.08)
    after = propagator.step(still)
    assert ((after[..., 2] > 0.5) == (drawn[..., 2] > 0.5)).all()


def test_masks_of_known_ids_are_ignored():
    one, two = Propagator(Protocol(), 2), Propagator(Protocol(), 2)
    first, second, third = features(3)
    for propagator in (one, two):
        propagator.step(first, masks((0, 24, 0, 64)))
    torch.testing.assert_close(one.step(second, masks((30, 48, 0, 20))), two.step(second))
    torch.testing.assert_close(one.step(third), two.step(third))
