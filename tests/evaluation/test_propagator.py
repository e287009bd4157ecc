"""The loop's state: references, late objects, what is remembered."""

import pytest
import torch
import torch.nn.functional as F

from hvc.evaluation.propagation.propagator import Propagator, upsample
from hvc.evaluation.propagation.protocol import Protocol

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
def test_what_is_older_than_the_context_is_forgotten(context):
    """Two videos that differ only in a frame that no context reaches any more."""
    one, two = (Propagator(Protocol(context=context), 2) for _ in range(2))
    frames = features(context + 3)
    for propagator, second in ((one, features(seed=1)[0]), (two, features(seed=2)[0])):
        propagator.step(frames[0], masks((0, 24, 0, 32)))
        propagator.step(second)
        # The frames between must not depend on the second one themselves: they are given.
        for frame in frames[1 : context + 1]:
            propagator.step(frame)
            propagator._memory[(propagator._t - 1) % (context + 1)].masks.fill_(0.5)
    torch.testing.assert_close(one.step(frames[-1]), two.step(frames[-1]), rtol=0, atol=0)


def test_memory_is_one_copy_of_the_context():
    propagator = Propagator(Protocol(context=3), 2)
    for t, feature in enumerate(features(9)):
        propagator.step(feature, masks((0, 24, 0, 32)) if t == 0 else None)
        assert propagator._memory.features.shape == (4, 6, 8, 16)
        assert len(propagator._references) == 1


def test_results_are_not_overwritten_by_later_frames():
    propagator = Propagator(Protocol(context=0), 2)
    first = propagator.step(features()[0], masks((0, 24, 0, 32)))
    before = first.clone()
    propagator.step(features(seed=3)[0])
    assert torch.equal(first, before)


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


def test_late_objects_may_be_left_out():
    one, two = (Propagator(Protocol(late_objects="never"), 3) for _ in range(2))
    frames = features(4)
    for propagator in (one, two):
        propagator.step(frames[0], masks((0, 24, 0, 64), None))
    torch.testing.assert_close(
        one.step(frames[1], masks(None, (30, 48, 0, 64))), two.step(frames[1]), rtol=0, atol=0
    )
    assert not one.step(frames[2])[..., 2].any()
    # What is first given is never late, whenever that is.
    late = Propagator(Protocol(late_objects="never"), 2)
    late.step(frames[0])
    assert late.step(frames[1], masks((0, 24, 0, 64)))[..., 1].any()


def test_soft_maps_are_taken_as_they_are():
    """Several channels may be 1 in a place, as joints near each other are, and one may be empty."""
    maps = torch.rand(4, 6, 8, generator=torch.Generator().manual_seed(1))
    maps[3] = 0
    propagator = Propagator(Protocol(temperature=0.01), 4)
    still = features()[0]
    first = propagator.step(still, soft=maps)
    torch.testing.assert_close(first.permute(2, 0, 1), maps.double())
    after = propagator.step(still)
    torch.testing.assert_close(after, first, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match=r"maps of \(5, 8\) cells, but features of \(6, 8\)"):
        Propagator(Protocol(), 4).step(still, soft=maps[:, 1:])


def test_labels_are_resized_as_the_protocol_says():
    """Centres of pixels at halves: a cell takes the mean of the four pixels around its middle."""
    given = masks((0, 20, 0, 28))
    soft = Propagator(Protocol(label_resize="half-pixel"), 2).step(features()[0], given)
    pixels = given[1].double()
    middle = sum(pixels[3 + y :: 8, 3 + x :: 8] for y in (0, 1) for x in (0, 1)) / 4
    torch.testing.assert_close(soft[..., 1], middle)
    column = torch.tensor([[[0.0], [1.0]]]).expand(4, 2, 1)
    half_pixel, aligned = (upsample(column, (4, 4), how)[1][0] for how in ("half-pixel", "aligned"))
    torch.testing.assert_close(half_pixel, torch.tensor([0, 0.25, 0.75, 1]))
    torch.testing.assert_close(aligned, torch.tensor([0, 1 / 3, 2 / 3, 1]))


def test_half_precision_rounds_features_only():
    soft = [Propagator(Protocol(context=2, precision=name), 2) for name in ("float32", "float16")]
    frames = features(3)
    for propagator in soft:
        propagator.step(frames[0], masks((0, 24, 0, 32)))
    whole, half = (propagator.step(frames[1]) for propagator in soft)
    assert half.dtype == whole.dtype
    difference = (half - whole).abs().max()
    assert 0 < difference < 0.02
