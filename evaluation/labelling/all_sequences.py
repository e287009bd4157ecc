"""All sequences of an evaluation, over processes and beside other evaluations in the same folder."""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from hvc.base.errors import HvcError, PlaceError
from hvc.base.stage import Stop
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.devices import devices_for, threads_for
from hvc.evaluation.labelling.frame_bar import FrameBar, frame_bar
from hvc.evaluation.labelling.one_sequence import Task
from hvc.evaluation.labelling.results import Results
from hvc.evaluation.labelling.worker import Done, Event, Failed, Frame, Setting
from hvc.evaluation.labelling.workers import run_here, run_in_processes
from hvc.evaluation.trunks.method import Method

_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass
class Labelled:
    """What became of the sequences: a record, an error, or (when stopped) nothing."""

    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)

    def __contains__(self, task: Task) -> bool:
        return task.sequence.name in self.records or task.sequence.name in self.failures

    def raise_failures(self) -> None:
        """One error for all failures; a defect of ours goes first, with its traceback."""
        for error in self.failures.values():
            if not isinstance(error, HvcError):
                raise error
        if self.failures:
            lines = [str(error) for error in self.failures.values()]
            kept = f"{len(self.records)} other sequences are done and kept" if self.records else ""
            of_place = any(isinstance(error, PlaceError) for error in self.failures.values())
            raise (PlaceError if of_place else HvcError)("\n".join([*lines, kept] if kept else lines))


def label(
    config: EvaluateConfig, method: Method, results: Results, kind: str, tasks: list[Task], stop: Stop
) -> Labelled:
    """Label and score sequences that are not finished yet, in the order of `tasks`.

    Those that another evaluation is at work on are waited for, and taken over if it goes away.

    Args:
        kind: `cpu` or `cuda`.
    """
    done = Labelled()
    _collect(results, tasks, done)
    total = sum(len(task.sequence.frames) for task in tasks)
    known = sum(len(task.sequence.frames) for task in tasks if task in done)
    with frame_bar(total, known) as bar:
        waited = False
        while not stop():
            missing = [task for task in tasks if task not in done]
            free = [task for task in missing if not results.is_claimed(task.sequence.name)]
            if free:
                _round(Setting(config, method, results, kind, 0), free, stop, done, bar)
            elif missing:
                if not waited:
                    names = ", ".join(task.sequence.name for task in missing)
                    _log.info("another evaluation in %s is at work on %s: waiting", results.folder, names)
                waited = True
                time.sleep(_LOOK_SECONDS)
            else:
                break
            bar.found(_collect(results, [task for task in tasks if task not in done], done))
    return done


def _collect(results: Results, tasks: list[Task], done: Labelled) -> int:
    """Take over what is finished; the number of frames in it."""
    frames = 0
    for task in tasks:
        known = results.finished(task.sequence.name, task.digest)
        if known is not None:
            done.records[task.sequence.name] = known
            frames += len(task.sequence.frames)
    return frames


def _round(setting: Setting, tasks: list[Task], stop: Stop, done: Labelled, bar: FrameBar) -> None:
    """Each of the tasks once, unless stopped before or somebody else was quicker."""
    shown: Counter[str] = Counter()
    frames = {task.sequence.name: len(task.sequence.frames) for task in tasks}

    def hear(event: Event) -> None:
        if isinstance(event, Frame):
            shown[event.name] += 1
            bar.advance()
        elif isinstance(event, Done) and event.record is not None:
            done.records[event.name] = event.record
            bar.found(frames[event.name] - shown[event.name])
        elif isinstance(event, Done):
            bar.take_back(shown[event.name])
        elif isinstance(event, Failed):
            done.failures[event.name] = event.error
            bar.take_back(shown[event.name])
            if len(tasks) > 1:  # what it was is said in the end
                _log.warning("sequence %s failed; the others go on", event.name)

    devices = devices_for(setting.config, setting.device, [task.sequence for task in tasks])
    if len(devices) == 1:
        run_here(replace(setting, device=devices[0]), tasks, stop, hear)
    else:
        many = replace(setting, threads=threads_for(devices))
        run_in_processes(many, tasks, devices, stop, hear)
