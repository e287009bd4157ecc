"""Single propagation calls against the official code's."""

import numpy as np
import pytest
import torch

from hvc.evaluation.propagation import Frame, propagate_masks

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("case", [0, 1, 2])
def test_a_propagation_call_is_the_official_one(golden, case):
    data = golden.load("predict.npz")
    radius, top_k, temperature = data[f"{case}_cfg"]
    features = torch.from_numpy(data[f"{case}_feats"]).double().permute(0, 2, 3, 1)
    masks = torch.from_numpy(data[f"{case}_labels"]).double().permute(0, 2, 3, 1)
    query = torch.from_numpy(data[f"{case}_query"]).double().permute(1, 2, 0)
    frames = [Frame(f, m) for f, m in zip(features, masks, strict=True)]
    predicted = propagate_masks(
        query,
        frames[0],
        [(frame, 1) for frame in frames[1:]],
        radius=radius,
        top_k=int(top_k),
        temperature=temperature,
    )
    np.testing.assert_allclose(predicted.permute(2, 0, 1), data[f"{case}_pred"], rtol=0, atol=1e-10)
