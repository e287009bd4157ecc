"""Unit length of embeddings: as PyTorch's own normalisation, value and gradient."""

import pytest
import torch
from torch.nn import functional as F

from hvc.pretrain.model.network import unit_length


def embeddings(dtype: torch.dtype) -> torch.Tensor:
    """With a vector of length 0, one shorter than the limit, and a very long one."""
    x = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0, :, 0, 0] = 0
    x[0, :, 1, 1] *= 1e-14
    x[1, :, 2, 3] *= 1e6
    return x.to(dtype).requires_grad_()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradient_are_those_of_normalize(dtype, rtol, layout):
    x, same = embeddings(dtype), embeddings(dtype)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    got, expected = unit_length(x.contiguous(memory_format=layout)), F.normalize(same, dim=1)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-12 if dtype == torch.float64 else 1e-6)
    torch.testing.assert_close(
        x.grad, same.grad, rtol=10 * rtol, atol=1e-6 if dtype == torch.float32 else 1e-12
    )


def test_half_precision_is_computed_in_fp32():
    x = embeddings(torch.bfloat16)
    unit = unit_length(x)
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit, F.normalize(x.float(), dim=1), rtol=1e-6, atol=1e-7)
    unit[..., 2].sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert torch.isfinite(x.grad).all()
