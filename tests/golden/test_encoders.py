"""Eval features of both trunks against the official code's, odd sizes included."""

import json

import numpy as np
import pytest
import torch

from hvc.pretrain.model.trunk import Trunk

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("depth", [18, 50])
def test_layer3_features_are_the_official_ones(golden, depth, size):
    data = golden.load("encoders.npz")
    shapes = json.loads(golden.common(f"r{depth}_trunk_shapes.json").read_text())
    state = golden.recipe.fill_state_dict(f"enc-{golden.letter}/random{depth}", shapes)
    trunk = Trunk(f"resnet{depth}", last="layer3").double().eval()
    trunk.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    with torch.no_grad():
        features = trunk(torch.from_numpy(data[f"random{depth}_{size}_x"]).double())[0]
    assert list(features.shape) == data[f"random{depth}_{size}_shape"].tolist()
    np.testing.assert_allclose(features[::16], data[f"random{depth}_{size}_chan0"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(features.norm(dim=0), data[f"random{depth}_{size}_norm"], rtol=1e-8)
