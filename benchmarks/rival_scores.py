"""Other tools' J and F, run from checkouts that the user names: nothing of them lies here.

    git clone https://github.com/davisvideochallenge/davis2017-evaluation DIR
    git clone https://github.com/hkchengrex/vos-benchmark DIR

Both need opencv and scikit-image (`pip install opencv-python-headless scikit-image tqdm`, or into a folder
by `pip install --target` and PYTHONPATH), which this project does not.
"""

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import UsageError

Values = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--davis` and `--vos-benchmark`."""
    without = "without it that comparison is left out"
    parser.add_argument("--davis", type=Path, help=f"checkout of davis2017-evaluation; {without}")
    parser.add_argument("--vos-benchmark", type=Path, help=f"checkout of vos-benchmark; {without}")


def davis(checkout: Path) -> Callable[[NDArray[np.uint8], NDArray[np.uint8], int], Values]:
    """The official measures: truth and labels, uint8 [T, H, W], and an id -> [T, 2], J and F."""
    metrics = _import("--davis", checkout, "davis2017.metrics")

    def measure(truth: NDArray[np.uint8], labels: NDArray[np.uint8], number: int) -> Values:
        pair = truth == number, labels == number
        return np.stack([metrics.db_eval_iou(*pair), metrics.db_eval_boundary(*pair)], axis=1)

    return measure


def vos_benchmark(checkout: Path, truth: Path, results: Path) -> Callable[[str], Any]:
    """Its whole work on one video, in this process: a name -> its J and F by object, in percent."""
    tool = _import("--vos-benchmark", checkout, "vos_benchmark.benchmark")
    evaluator: Callable[[str], Any] = tool.VideoEvaluator(str(truth), str(results))
    return evaluator


def _import(option: str, checkout: Path, module: str) -> Any:
    file = checkout / f"{module.replace('.', '/')}.py"
    if not file.is_file():
        raise UsageError(f"{option} {checkout}: there is no {file}; clone the repository there")
    sys.path.insert(0, str(checkout.absolute()))
    try:
        loaded = importlib.import_module(module)
        importlib.import_module("cv2").setNumThreads(1)
    except ImportError as error:
        raise UsageError(
            f"{option}: {error}; it needs opencv-python-headless, scikit-image, tqdm"
        ) from None
    finally:
        sys.path.remove(str(checkout.absolute()))
    return loaded
