"""The most that a GPU can compute by its data sheet: what achieved FLOP/s are a share of (MFU)."""

import re
from typing import Literal, NamedTuple

import torch

Precision = Literal["fp32", "bf16", "fp16"]


class _Peak(NamedTuple):
    """TFLOP/s, dense: sheets that state figures with sparsity are halved. None: no such unit."""

    half: float  # fp16 tensor cores, fp32 accumulation
    tf32: float | None
    fp32: float
    bf16: bool = True  # at the same rate as fp16


# By the name that PyTorch gives; the first that fits, so special forms come before plain ones.
_PEAKS: tuple[tuple[str, _Peak], ...] = (
    # NVIDIA HGX B200 data sheet: per GPU of eight.
    (r"\bB200\b", _Peak(2250, 1125, 75)),
    # NVIDIA H200 data sheet (SXM; NVL).
    (r"\bH200 NVL\b", _Peak(835.5, 417.5, 60)),
    (r"\bG?H200\b", _Peak(989.4, 494.7, 67)),
    # NVIDIA H100 data sheet (PCIe; NVL; SXM, which calls itself `H100 80GB HBM3`).
    (r"\bH100 PCIe\b", _Peak(756.5, 378, 51)),
    (r"\bH100 NVL\b", _Peak(835.5, 417.5, 60)),
    (r"\bH[18]00\b", _Peak(989.4, 494.7, 67)),
    # NVIDIA A100 data sheet (SXM and PCIe alike).
    (r"\bA(100|800)\b", _Peak(312, 156, 19.5)),
    # NVIDIA A30, A40, A10 data sheets.
    (r"\bA30\b", _Peak(165, 82, 10.3)),
    (r"\bA40\b", _Peak(149.7, 74.8, 37.4)),
    (r"\bA10\b", _Peak(125, 62.5, 31.2)),
    # NVIDIA RTX A6000 data sheet.
    (r"\bRTX A6000\b", _Peak(154.8, 77.4, 38.7)),
    # NVIDIA L40S, L40, L4 data sheets.
    (r"\bL40S\b", _Peak(362, 183, 91.6)),
    (r"\bL40\b", _Peak(181, 90.5, 90.5)),
    (r"\bL4\b", _Peak(121, 60, 30.3)),
    # NVIDIA V100 and V100S data sheets.
    (r"\bV100S", _Peak(130, None, 16.4, bf16=False)),
    (r"\bV100-PCIE", _Peak(112, None, 14, bf16=False)),
    (r"\bV100", _Peak(125, None, 15.7, bf16=False)),
    # NVIDIA T4 data sheet.
    (r"\bT4\b", _Peak(65, None, 8.1, bf16=False)),
    # NVIDIA Ampere GA102 and Ada AD102 white papers, appendix A; halves with fp32 accumulation.
    (r"\bRTX 3090 Ti\b", _Peak(80, 40, 40)),
    (r"\bRTX 3090\b", _Peak(71, 35.6, 35.6)),
    (r"\bRTX 4090(?! D| Laptop)", _Peak(165.2, 82.6, 82.6)),
)


def peak_tflops(device_name: str, precision: Precision) -> float | None:
    """Dense peak of a GPU in TFLOP/s; None where it is not known, or has no units for this precision.

    Args:
        device_name: as `torch.cuda.get_device_name()` gives it. A MIG slice is a part of unknown size.
        precision: what convolutions compute in. fp32 means TF32 where PyTorch lets convolutions use it
            (the default) and the GPU has it.
    """
    if "MIG" in device_name:
        return None
    for pattern, peak in _PEAKS:
        if re.search(pattern, device_name):
            return _of(peak, precision, _convolutions_use_tf32())
    return None


def _convolutions_use_tf32() -> bool:
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    if convolutions is None:  # PyTorch before 2.9
        return bool(torch.backends.cudnn.allow_tf32)
    return bool(convolutions.fp32_precision == "tf32")


def _of(peak: _Peak, precision: Precision, tf32_allowed: bool) -> float | None:
    if precision == "fp16" or (precision == "bf16" and peak.bf16):
        return peak.half
    if precision == "bf16":
        return None
    return peak.tf32 if tf32_allowed and peak.tf32 is not None else peak.fp32
