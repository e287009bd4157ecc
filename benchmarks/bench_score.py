"""J and F of masks against the official DAVIS toolkit and vos-benchmark, side by side on one core.

The masks are drawn: 854 x 480 pixels, objects with wavy outlines that move, results whose outlines are a
few pixels off. The toolkit's functions are compared with ours on the same arrays; vos-benchmark, which is
about reading as well, on the same PNG files, from names to scores. Each runs in turn, the shortest counts.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from form import Figure, report
from numpy.typing import NDArray
from rival_scores import add_arguments, davis, vos_benchmark

from hvc.data_prep.pool import default_workers
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.davis import MaskScorer
from hvc.evaluation.metrics.davis_measures import measure_frame
from hvc.evaluation.metrics.score_frames import score_sequences

HEIGHT, WIDTH = 480, 854
VIDEOS, FRAMES, OBJECTS = 3, 40, 2
COPIES = 12
"""How often the videos are scored to load all cores."""
RUNS = 3
NOTE = f"{VIDEOS} videos, {FRAMES} frames, {OBJECTS} objects, {WIDTH}x{HEIGHT}, best of {RUNS}"

Masks = NDArray[np.uint8]


def main() -> None:
    """Measure what there are checkouts for, and report it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args()
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = {f"video{number}": draw_video(number) for number in range(VIDEOS)}
        sequences = write(videos, folder)
        os.sched_setaffinity(0, {min(cores)})
        figures = measures(videos, args.davis)
        figures += files(sequences, folder, args.vos_benchmark)
        os.sched_setaffinity(0, cores)
        figures += parallel(sequences, folder)
    report("score", figures, ("numpy", "numba", "pillow"))


def draw_video(seed: int) -> tuple[Masks, Masks]:
    """Truth and results, uint8 [T, H, W]."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    truth, results = np.zeros((2, FRAMES, HEIGHT, WIDTH), np.uint8)
    for number in range(1, OBJECTS + 1):
        centre = generator.uniform([120, 180], [360, 670])
        speed, phase = generator.uniform(-2, 2, 2), generator.uniform(0, 2 * np.pi, 4)
        size = generator.uniform(70, 110)
        for frame in range(FRAMES):
            dy, dx = y - centre[0] - frame * speed[0], x - centre[1] - frame * speed[1]
            angle, distance = np.arctan2(dy, dx), np.hypot(dy, dx)
            waves = [np.sin((k + 2) * angle + phase[k] + 0.05 * frame) / (k + 2) for k in range(4)]
            outline = size * (1 + 0.4 * sum(waves))
            error = 6 * np.sin(9 * angle + frame) + generator.normal(0, 1, (HEIGHT, WIDTH))
            truth[frame][distance < outline] = number
            results[frame][distance < outline + error] = number
    return truth, results


def write(videos: dict[str, tuple[Masks, Masks]], folder: Path) -> list[Sequence]:
    """PNG files `truth/NAME/STEM.png` and `results/NAME/STEM.png`."""
    for name, pair in videos.items():
        for kind, masks in zip(("truth", "results"), pair, strict=True):
            for frame, mask in enumerate(masks):
                write_mask(folder / kind / name / f"{frame:05d}.png", mask)
    found = []
    for name in videos:
        paths = sorted((folder / "truth" / name).iterdir())
        found.append(Sequence(name, paths, {0: paths[0]}, list(paths), single_object=False))
    return found


def measures(videos: dict[str, tuple[Masks, Masks]], checkout: Path | None) -> list[Figure]:
    """The functions alone, on arrays."""
    objects = np.arange(1, OBJECTS + 1, dtype=np.uint8)

    def ours() -> NDArray[np.float64]:
        pairs = [pair for video in videos.values() for pair in zip(*video, strict=True)]
        return np.stack([measure_frame(*pair, objects)[0] for pair in pairs])

    per_object = VIDEOS * FRAMES * OBJECTS
    ours()
    if checkout is None:
        seconds, _ = best(ours)
        return [Figure("score.ms_per_object", 1e3 * seconds / per_object, "ms", note=NOTE)]
    official = davis(checkout)

    def theirs() -> NDArray[np.float64]:
        tables = [
            np.stack([official(*video, number) for number in objects], 1) for video in videos.values()
        ]
        return np.concatenate(tables)

    (seconds, values), (official_seconds, expected) = best(ours, theirs)
    reference = "db_eval_iou and db_eval_boundary, same arrays and core"
    return [
        Figure("score.ms_per_object", 1e3 * seconds / per_object, "ms", note=NOTE),
        Figure("score.vs_davis", official_seconds / seconds, "x", reference, "> 10", NOTE),
        Figure("score.max_difference", float(np.abs(values - expected).max()), "", reference, "< 1e-12"),
    ]


def files(sequences: list[Sequence], folder: Path, checkout: Path | None) -> list[Figure]:
    """From PNG files to scores in one process."""
    scorer = MaskScorer()

    def ours() -> float:
        records = {sequence.name: scorer.score(sequence, folder / "results") for sequence in sequences}
        return scorer.summarise(records).scores["jf_mean"]

    frames = VIDEOS * (FRAMES - 2)
    ours()
    if checkout is None:
        seconds, _ = best(ours)
        return [Figure("score.frames_per_second", frames / seconds, "frames/s", note="files, one core")]
    evaluate = vos_benchmark(checkout, folder / "truth", folder / "results")

    def theirs() -> float:
        scores = [evaluate(sequence.name)[1:] for sequence in sequences]
        return float(np.mean([list(by_object.values()) for pair in scores for by_object in pair]))

    (seconds, value), (their_seconds, expected) = best(ours, theirs)
    note = f"{NOTE}; J&F differs by {abs(value - expected):.1g}"
    reference = "its VideoEvaluator, same files and core"
    return [
        Figure("score.frames_per_second", frames / seconds, "frames/s", note="files, one core"),
        Figure("score.vs_vos_benchmark", their_seconds / seconds, "x", reference, "> 1.5", note),
    ]


def parallel(sequences: list[Sequence], folder: Path) -> list[Figure]:
    """All cores against one, on enough frames; where they are processes, their start is in it."""
    scorer, results, cores = MaskScorer(), folder / "results", default_workers()
    many = []
    for copy in range(COPIES):
        for one in sequences:
            name = f"{one.name}-{copy}"
            (results / name).symlink_to(one.name)
            many.append(dataclasses.replace(one, name=name))
    (alone, _), (together, _) = best(
        lambda: score_sequences(scorer, many, results, 1),
        lambda: score_sequences(scorer, many, results, cores),
    )
    frames = COPIES * VIDEOS * (FRAMES - 2)
    note = f"{frames} frames, {cores} cores, {frames / together:.0f} frames/s"
    return [Figure("score.parallel", alone / together, "x", "one core, same files", note=note)]


def best(*functions: Callable[[], object]) -> list[tuple[float, object]]:
    """Shortest time and result of each, run in turn."""
    times: list[list[float]] = [[] for _ in functions]
    results: list[object] = [None] * len(functions)
    for _ in range(RUNS):
        for number, function in enumerate(functions):
            start = time.perf_counter()
            results[number] = function()
            times[number].append(time.perf_counter() - start)
    return [(min(taken), result) for taken, result in zip(times, results, strict=True)]


if __name__ == "__main__":
    main()
