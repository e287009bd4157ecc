"""Single propagation calls against the official code's."""

import numpy as np
import pytest
import torch

from hvc.evaluation.propagation.memory import Memory
from hvc.evaluation.propagation.propagate import propagate_masks
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.propagation.tiles import propagate_tiles

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("engine", [propagate_masks, propagate_tiles])
@pytest.mark.parametrize("case", [0, 1, 2])
def test_a_propagation_call_is_the_official_one(golden, case, engine):
    data = golden.load("predict.npz")
    radius, top_k, temperature = data[f"{case}_cfg"]
    features = torch.from_numpy(data[f"{case}_feats"]).double().permute(0, 2, 3, 1).contiguous()
    masks = torch.from_numpy(data[f"{case}_labels"]).double().permute(0, 2, 3, 1).contiguous()
    query = torch.from_numpy(data[f"{case}_query"]).double().permute(1, 2, 0).contiguous()
    reference, context = Memory(features[:1], masks[:1]), Memory(features[1:], masks[1:])
    counts = [dict.fromkeys(range(len(features) - 1), 1)]
    protocol = Protocol(radius=radius, top_k=int(top_k), temperature=temperature)
    predicted = engine(query, [reference[0]], context, counts, protocol)[0]
    np.testing.assert_allclose(predicted.permute(2, 0, 1), data[f"{case}_pred"], rtol=0, atol=1e-10)
