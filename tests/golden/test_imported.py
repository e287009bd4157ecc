"""Trunks that went through the official layouts and `hvc import`, against the official code's features."""

import json

import numpy as np
import pytest
import torch
import weights_files as files

from hvc.pretrain.model.trunk import Trunk
from hvc.pretrain.weights.encoder_file import read_encoder
from hvc.pretrain.weights.export import export
from hvc.pretrain.weights.official import read_weights

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("depth", [18, 50])
def test_features_of_an_imported_trunk_are_the_official_ones(golden, tmp_path, depth, size):
    data = golden.load("encoders.npz")
    shapes = json.loads(golden.common(f"r{depth}_trunk_shapes.json").read_text())
    filled = golden.recipe.fill_state_dict(f"enc-{golden.letter}/random{depth}", shapes)
    state = {key: torch.from_numpy(np.asarray(value)) for key, value in filled.items()}
    if depth == 18:
        source = files.crw(tmp_path / "w.pth", state, pad_layers=False, model_type="scratch_zeropad")
    else:
        source = files.moco(tmp_path / "w.pth.tar", state)
    found = read_weights(source)
    export(found.state, found.metadata, tmp_path / "w.safetensors")
    tensors, metadata = read_encoder(tmp_path / "w.safetensors")
    assert metadata.architecture == f"resnet{depth}"
    assert all(torch.equal(tensors[key], state[key].to(tensors[key].dtype)) for key in tensors)
    trunk = (
        Trunk(metadata.architecture, metadata.stride_1_layers, "layer3", metadata.padding).double().eval()
    )
    trunk.load_state_dict(tensors)
    with torch.no_grad():
        features = trunk(torch.from_numpy(data[f"random{depth}_{size}_x"]).double())[0].numpy()
    np.testing.assert_allclose(features[::16], data[f"random{depth}_{size}_chan0"], rtol=1e-8, atol=1e-8)
