"""Whole label-propagation loops on given feature maps against the official code's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hvc.evaluation.propagation.propagator import Propagator, upsample
from hvc.evaluation.propagation.protocol import Protocol

pytestmark = pytest.mark.shared


def merged(first: torch.Tensor, second: torch.Tensor, weight: float) -> torch.Tensor:
    """The official way to compare with two encoders at once: [T, C1, h, w], [T, C2, h, w]."""
    return F.normalize(
        torch.cat([weight * F.normalize(first, dim=1), F.normalize(second, dim=1)], 1), dim=1
    )


@pytest.mark.parametrize("case", [0, 1, 2, 3])
def test_a_video_is_labelled_as_officially(golden, case):
    """Objects that appear late, two encoders, nothing annotated before frame 2."""
    data = {
        key[2:]: value for key, value in golden.load("vosloop.npz").items() if key.startswith(f"{case}_")
    }
    radius, top_k, temperature, context, merge, weight = data["cfg"]
    first = torch.from_numpy(data["f1"]).double()
    features = (
        merged(first, torch.from_numpy(data["f2"]).double(), weight) if merge else F.normalize(first, dim=1)
    )
    protocol = Protocol(radius=radius, top_k=int(top_k), temperature=temperature, context=int(context))
    masks = torch.from_numpy(data["init_masks"]).bool()
    starts = torch.from_numpy(data["init_frame"])
    propagator = Propagator(protocol, len(masks))
    for t, feature in enumerate(features):
        now = starts == t
        given = masks & now[:, None, None] if now.any() else None
        labels, confidence = upsample(propagator.step(feature, given), tuple(data["HW"].tolist()))
        np.testing.assert_array_equal(labels, data["pred"][t], err_msg=f"frame {t}")
        np.testing.assert_allclose(confidence, data["conf"][t], rtol=0, atol=1e-5)
