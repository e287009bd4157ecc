"""Measures as people and other programs read them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_LABELS = {
    "jf_mean": "J&F",
    "j_mean": "J",
    "f_mean": "F",
    "j_recall": "J recall",
    "f_recall": "F recall",
    "j_decay": "J decay",
    "f_decay": "F decay",
    "j_last": "J last",
    "miou": "mIoU",
    "g": "G",
}
MAIN = ("jf_mean", "j_mean", "f_mean", "j_last", "g", "miou", "pck_0.1", "pck_0.2")
"""Measures that papers quote, in the order of their tables."""


def label(measure: str) -> str:
    """`jf_mean` -> J&F, `pck_0.1` -> PCK@0.1; a curve `j` -> J; another name stays as it is."""
    known = _LABELS.get(measure) or _LABELS.get(f"{measure}_mean")
    return known or measure.replace("pck_", "PCK@").replace("iou_", "IoU ")


def finite(value: Any) -> Any:
    """Plain data for JSON, which knows no number that is not finite: null instead."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main_curve(curves: Mapping[str, Sequence[float]]) -> tuple[str, list[float]] | None:
    """One sequence's values per frame by which it is judged, and their label; None without curves.

    Where J and F are measured it is their mean, frame by frame.
    """
    if {"j", "f"} <= set(curves):
        pairs = zip(curves["j"], curves["f"], strict=True)
        return label("jf"), [(j + f) / 2 for j, f in pairs]
    return next(((label(name), list(values)) for name, values in curves.items()), None)


def scored_frames(scored: int, results: Sequence[int]) -> Sequence[int]:
    """Which frames a curve of so many values belongs to: benchmarks may leave the ends out.

    DAVIS leaves out the first and the last frame, JHMDB the first one, VIP none.
    """
    return results if scored >= len(results) else results[1 : 1 + scored]
