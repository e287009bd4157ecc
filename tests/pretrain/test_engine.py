"""The DeepSpeed engine takes the same steps as plain PyTorch, and refuses bad ones on the device."""

import numpy as np
import pytest
import torch
from engine_harness import bare_steps, engine_steps, in_processes

from hvc.pretrain.training.optimiser import GuardedAdam, LossScale

pytestmark = pytest.mark.slow


def assert_same_training(got, expected):
    """Losses and norms to fp32 rounding; weights too, but for those that have no true gradient."""
    losses, norms, tensors = got
    true_losses, true_norms, true_tensors = expected
    np.testing.assert_allclose(losses, true_losses, atol=2e-5)
    np.testing.assert_allclose(norms, true_norms, rtol=2e-4)
    for name, value in true_tensors.items():
        # A bias before a BatchNorm has no gradient but rounding, which Adam makes as large as any.
        loose = name.endswith(
            ("block.conv1.bias", "block.conv2.bias", "flow.conv1.bias", "flow.conv2.bias")
        )
        mean = "running_mean" in name
        atol = 1.2e-2 if loose else 5e-3 if mean else 2e-4
        np.testing.assert_allclose(tensors[name], value.numpy(), atol=atol, rtol=1e-3, err_msg=name)


@pytest.fixture(scope="module")
def bare():
    return bare_steps()


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_one_rank_trains_as_plain_pytorch_does(bare, zero_stage):
    (got,) = in_processes(1, engine_steps, {"engine": {"zero_stage": zero_stage}})
    assert_same_training(got, bare)


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_channels_last_takes_the_same_steps(bare, zero_stage):
    (got,) = in_processes(1, engine_steps, {"engine": {"zero_stage": zero_stage, "channels_last": True}})
    # Its sums round otherwise, and Adam makes a weight's first steps as large whatever its gradient.
    np.testing.assert_allclose(got[0], bare[0], atol=1e-4)
    np.testing.assert_allclose(got[1], bare[1], rtol=1e-3)


def test_parts_of_a_batch_add_up():
    (got,) = in_processes(1, engine_steps, {"engine": {"accumulate": 2}})
    assert_same_training(got, bare_steps(micro=2))


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_clipping_scales_the_whole_gradient(zero_stage):
    (got,) = in_processes(1, engine_steps, {"engine": {"zero_stage": zero_stage, "clip_norm": 0.5}})
    expected = bare_steps(clip=0.5)
    assert max(expected[1]) > 0.5, "nothing was clipped"
    assert_same_training(got, expected)


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_two_ranks_average_their_gradients(zero_stage):
    """Two ranks with two images each: as one process that accumulates two parts of two images."""
    got = in_processes(2, engine_steps, {"engine": {"zero_stage": zero_stage}})
    expected = bare_steps(micro=2)
    np.testing.assert_allclose(got[0][0], expected[0], atol=2e-5)
    np.testing.assert_allclose(got[0][1], expected[1], rtol=2e-4)
    for name, value in got[0][2].items():
        if "running" not in name and "num_batches" not in name:
            assert np.array_equal(value, got[1][2][name]), name  # all ranks hold the same weights


def test_the_rate_follows_the_schedule():
    schedule = {"warmup_steps": 3, "decay": "cosine"}
    (got,) = in_processes(1, engine_steps, {"schedule": schedule})
    half = [(1 + np.cos(np.pi * (step - 3) / 3)) / 2 for step in range(6)]
    rates = [1e-3 * ((step + 1) / 3 if step < 3 else half[step]) for step in range(6)]
    assert_same_training(got, bare_steps(rate=rates.__getitem__))


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(7, 5, generator=generator)) for _ in range(3)]


def test_a_gradient_that_is_not_finite_moves_nothing():
    held = parameters()
    optimiser = GuardedAdam(held, learning_rate=0.1)
    for value in held:
        value.grad = torch.ones_like(value)
    optimiser.step()
    before = [value.detach().clone() for value in held]
    state = {key: value.clone() for key, value in optimiser.state[held[1]].items()}
    for bad in (float("nan"), float("inf")):
        for value in held:
            value.grad = torch.ones_like(value)
        held[1].grad[2, 3] = bad
        optimiser.step()
        assert optimiser.found_inf == 1
        assert not torch.isfinite(optimiser.norm)
        assert all(torch.equal(value, old) for value, old in zip(held, before, strict=True))
        assert all(torch.equal(optimiser.state[held[1]][key], old) for key, old in state.items())
    for value in held:
        value.grad = torch.ones_like(value)
    optimiser.step()
    assert optimiser.found_inf == 0
    assert not torch.equal(held[1], before[1])


def test_the_loss_scale_halves_where_gradients_overflow_and_leaves_no_trace_else():
    scale, plain, held = LossScale(torch.device("cpu")), parameters(), parameters()
    scaled = GuardedAdam(held, learning_rate=0.1, clip_norm=0.3, loss_scale=scale)
    other = GuardedAdam(plain, learning_rate=0.1, clip_norm=0.3)
    for step in range(4):
        gradients = [torch.full_like(value, 0.1 * (step + 1)) for value in held]
        for value, single, gradient in zip(held, plain, gradients, strict=True):
            value.grad, single.grad = gradient * scale.value, gradient
        if step == 1:
            held[0].grad[0, 0] = float("inf")
        else:
            other.step()
        before = float(scale.value)
        scaled.step()
        assert float(scale.value) == (before / 2 if step == 1 else before)
        for value, single in zip(held, plain, strict=True):
            torch.testing.assert_close(value, single, rtol=1e-5, atol=1e-6)
    state = scale.state()
    again = LossScale(torch.device("cpu"))
    again.load_state(state)
    assert again.state() == state


def scaled_step(scale: LossScale, loss: float, gradient: float) -> GuardedAdam:
    held = parameters()
    optimiser = GuardedAdam(held, learning_rate=0.1, loss_scale=scale)
    scale.apply(torch.tensor(loss))
    for value in held:
        value.grad = torch.full_like(value, gradient)
    optimiser.step()
    return optimiser


def test_the_loss_scale_answers_for_overflows_alone():
    scale = LossScale(torch.device("cpu"))
    scaled_step(scale, 1.0, 0.1)
    before = scale.state()
    nan, inf = float("nan"), float("inf")
    bad_loss = scaled_step(scale, nan, nan)
    assert (float(bad_loss.found_inf), float(bad_loss.overflow)) == (1, 0)
    assert scale.state() == before  # neither halved, nor its count of good steps begun anew
    overflow = scaled_step(scale, 1.0, inf)
    assert (float(overflow.found_inf), float(overflow.overflow)) == (1, 1)
    assert scale.state() == {"scale": before["scale"] / 2, "good_steps": 0}
    # Halved to below 1 it is not to blame any more.
    answers = [float(scaled_step(scale, 1.0, inf).overflow) for _ in range(17)]
    assert answers == [1] * 16 + [0]
