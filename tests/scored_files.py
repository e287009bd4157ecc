"""Ground truth and results as files, for the measures of masks."""

from pathlib import Path

import numpy as np

from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.sequences import Sequence


def objects_in(frames=6, objects=2):
    """True labels [T, 20, 30]: objects side by side that stand still."""
    truth = np.zeros((frames, 20, 30), np.uint8)
    for index in range(objects):
        truth[:, 2:9, 1 + 9 * index : 8 + 9 * index] = index + 1
    return truth


def save(folder: Path, name: str, labels) -> list[Path]:
    """Label maps as NAME/00000.png and so on."""
    paths = [folder / name / f"{number:05d}.png" for number in range(len(labels))]
    for path, mask in zip(paths, labels, strict=True):
        write_mask(path, mask)
    return paths


def scene(folder: Path, truth, labels, name="clip", single_object=False) -> tuple[Sequence, Path]:
    """A sequence with its ground truth, and the folder of results."""
    files = save(folder / "truth", name, truth)
    save(folder / "results", name, labels)
    return Sequence(name, files, {0: files[0]}, list(files), single_object), folder / "results"
