"""One sequence from its frames to its record: label maps, then measures, then the record that says so."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hvc.base.stage import Stop
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.finished import write_finished
from hvc.evaluation.labelling.results import Results, count_labels
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.sequences import Sequence
from hvc.evaluation.metrics.scoring import scorer_of
from hvc.evaluation.propagation.features import Extractor
from hvc.evaluation.propagation.joints import FrameJoints, track_joints, write_joints
from hvc.evaluation.propagation.video import FrameLabels, copy_first, propagate


@dataclass(frozen=True)
class Task:
    """A sequence to do."""

    sequence: Sequence
    digest: str
    """Of its files, see `finished.sequence_digest`."""


def is_scored(config: EvaluateConfig, sequence: Sequence) -> bool:
    """Whether there is ground truth to compare with; people's own videos need masks of all frames."""
    if scorer_of(config.benchmark, config.protocol) is None:
        return False
    return config.benchmark != "folder" or sequence.annotated


def evaluate_sequence(
    task: Task,
    extractor: Extractor | None,
    config: EvaluateConfig,
    results: Results,
    stop: Stop,
    on_frame: Callable[[], None],
    device: str = "cpu",
) -> dict[str, Any] | None:
    """The record of a sequence, made now or found; None if stopped before its end.

    The record is written last: with it the sequence counts as finished, as long as its files stay the
    same. BusyError while another process makes it.
    """
    sequence = task.sequence
    with results.claim(sequence.name):
        known = results.finished(sequence.name, task.digest)
        if known is not None:
            return known
        start = time.monotonic()
        results.forget(sequence.name)
        if not _label(sequence, extractor, config, results, stop, on_frame):
            return None
        result: dict[str, Any] = {
            "name": sequence.name,
            "frames": len(sequence.frames),
            "files": count_labels(results.labels, sequence.name),
            "seconds": time.monotonic() - start,
            "device": device,
        }
        scorer = scorer_of(config.benchmark, config.protocol)
        if scorer is not None and is_scored(config, sequence):
            result["scores"] = scorer.score(sequence, results.labels)
        result["time"] = int(1000 * time.time())
        return write_finished(results.record(sequence.name), task.digest, result)


def _label(
    sequence: Sequence,
    extractor: Extractor | None,
    config: EvaluateConfig,
    results: Results,
    stop: Stop,
    on_frame: Callable[[], None],
) -> bool:
    """Write the results of all frames; False when stopped before the last."""
    joints: list[FrameJoints] = []
    done = 0
    for frame in _answers(sequence, extractor, config, stop):
        if isinstance(frame, FrameJoints):
            joints.append(frame)
        elif frame.labels is not None:
            name = f"{sequence.frames[frame.index].stem}.png"
            write_mask(results.labels / sequence.name / name, frame.labels)
        done += 1
        on_frame()
        if stop():
            return False
    if done < len(sequence.frames):
        return False
    if joints:
        write_joints(results.labels / f"{sequence.name}.json", sequence, joints)
    return True


def _answers(
    sequence: Sequence, extractor: Extractor | None, config: EvaluateConfig, stop: Stop
) -> Iterator[FrameLabels | FrameJoints]:
    if extractor is None:
        return copy_first(sequence, config.protocol, stop)
    if BENCHMARKS[config.benchmark].kind == "joints":
        return track_joints(sequence, extractor, config.protocol, stop)
    return propagate(sequence, extractor, config.protocol, stop)
