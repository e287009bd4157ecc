"""Features as colours: what they depend on, and what they do not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.pretrain.drawing.feature_colours import feature_colours


def smooth_features(seed: int, channels: int = 16, count: int = 2, side: int = 6) -> torch.Tensor:
    """Features with four clear directions of falling strength and some noise, [n, C, side, side]."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count * side * side, 4, generator=generator) * torch.tensor([8.0, 5.0, 3.0, 0.5])
    directions = torch.linalg.qr(torch.randn(channels, 4, generator=generator)).Q
    rows = scores @ directions.T + 0.05 * torch.randn(len(scores), channels, generator=generator) + 3
    return rows.view(count, side, side, channels).permute(0, 3, 1, 2)


GREY = torch.full((2, 6, 6, 3), 0.5)
LIKE = torch.rand(2, 6, 6, 3, generator=torch.Generator().manual_seed(9))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_colours_know_neither_sign_nor_order_nor_basis_of_channels(seed):
    features = smooth_features(0)
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    turned = torch.einsum("nchw,cd->ndhw", features, basis) * 7 - 2
    expected, share = feature_colours(features, LIKE)
    colours, share_turned = feature_colours(turned, LIKE)
    torch.testing.assert_close(colours, expected, atol=2e-3, rtol=0)
    assert share_turned == pytest.approx(share, abs=1e-4)
    assert expected.std() > 0.1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_colours_turn_to_those_that_they_should_be_like(seed):
    features = 0.4 * torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    expected, _ = feature_colours(features, LIKE)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))).Q
    like = (expected - 0.5) @ turn + 0.5  # another sign, order, mixture of the same directions
    colours, _ = feature_colours(features, like)
    inside = (colours > 0) & (colours < 1) & (expected > 0).all(-1, True) & (expected < 1).all(-1, True)
    torch.testing.assert_close(colours[inside], like[inside], atol=0.06, rtol=0)
    assert inside.float().mean() > 0.7


def test_colours_stay_when_features_change_a_little():
    features = smooth_features(1)
    before, _ = feature_colours(features, LIKE)
    noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(2))
    after, _ = feature_colours(-(features + 0.1 * noise), before)
    assert (after - before).abs().mean() < 0.03


def test_like_features_have_like_colours_and_other_features_others():
    features = torch.zeros(2, 8, 6, 6)
    features[:, 0, :, :3], features[:, 1, :, 3:] = 1.0, 1.0
    colours, share = feature_colours(features, LIKE)
    assert share == pytest.approx(1, abs=1e-5)
    left, right = colours[:, :, :3].reshape(-1, 3), colours[:, :, 3:].reshape(-1, 3)
    assert (left - left[0]).abs().max() < 1e-4
    assert (right - right[0]).abs().max() < 1e-4
    assert (left[0] - right[0]).norm() > 0.4


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_a_collapsed_network_is_grey(noise):
    features = torch.ones(2, 8, 6, 6) * torch.arange(1.0, 9.0)[:, None, None]
    features = features + noise * smooth_features(3, 8)
    colours, share = feature_colours(features, LIKE)
    assert share == 0
    assert torch.equal(colours, GREY)


def test_the_share_is_that_of_an_exact_decomposition():
    features = smooth_features(4, channels=300)
    rows = features.permute(0, 2, 3, 1).reshape(-1, 300).double()
    values = torch.linalg.svdvals(rows - rows.mean(0)).square()
    _, share = feature_colours(features, LIKE)
    assert share == pytest.approx(float(values[:3].sum() / values.sum()), abs=1e-3)


def test_positions_that_are_not_finite_are_black_and_the_others_are_not():
    features = smooth_features(5)
    features[0, 3, 2, 2], features[1, 0, 0, 0] = torch.nan, torch.inf
    colours, _ = feature_colours(features, LIKE)
    black = (colours == 0).all(-1)
    assert black[0, 2, 2]
    assert black[1, 0, 0]
    assert black.sum() <= 4
    assert torch.isfinite(colours).all()
    assert torch.equal(
        feature_colours(torch.full_like(features, torch.nan), LIKE)[0], torch.zeros(2, 6, 6, 3)
    )


def test_no_generator_of_the_process_is_touched():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    feature_colours(smooth_features(6), LIKE)
    assert torch.equal(torch.get_rng_state(), before)
