"""The inside of a process that labels sequences: tasks come in on one pipe, events go out on another.

It ends by itself as soon as the process that started it is gone, and leaves nothing but files of results.
"""

import os
import pickle
import queue
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from hvc.base.errors import HvcError, PlaceError
from hvc.base.stage import Stop, never
from hvc.data_prep.worker import own_pipes

if TYPE_CHECKING:  # torch is imported when signals are taken care of, not before
    from hvc.evaluation.evaluate_config import EvaluateConfig
    from hvc.evaluation.labelling.one_sequence import Task
    from hvc.evaluation.labelling.results import Results
    from hvc.evaluation.trunks.method import Method

COMMAND = "import sys; sys.path[:] = sys.argv[1:]; import hvc.evaluation.labelling.worker as w; w.serve()"
"""What Python is started with; the arguments are its path."""


@dataclass(frozen=True)
class Frame:
    """One more frame of a sequence is labelled."""

    name: str


@dataclass(frozen=True)
class Done:
    """A sequence is finished; None: it was stopped, or somebody else is at work on it."""

    name: str
    record: dict[str, Any] | None


@dataclass(frozen=True)
class Failed:
    """A sequence could not be done."""

    name: str
    error: BaseException


@dataclass(frozen=True)
class Unfit:
    """The process cannot do any sequence: its weights or device are wrong."""

    error: BaseException


Event = Frame | Done | Failed | Unfit


@dataclass(frozen=True)
class Setting:
    """What all sequences have in common."""

    config: "EvaluateConfig"
    method: "Method"
    results: "Results"
    device: str
    threads: int
    """Of torch; 0 leaves them as they are."""


Say = Callable[[Event], None]


def labeller(setting: Setting) -> Callable[["Task", Stop, Say], None]:
    """What does one task after the other; the weights are read once, here.

    Raises HvcError when they cannot be.
    """
    import torch

    from hvc.data_prep.lock import BusyError
    from hvc.evaluation.labelling.one_sequence import evaluate_sequence
    from hvc.evaluation.trunks.method import extractor_of

    if setting.threads:
        torch.set_num_threads(setting.threads)
    extractor = extractor_of(setting.method, setting.config, setting.device)
    on_gpu = setting.device.startswith("cuda")
    device = torch.cuda.get_device_name(setting.device) if on_gpu else "cpu"

    def do(task: "Task", stop: Stop, say: Say) -> None:
        name = task.sequence.name
        try:
            record = evaluate_sequence(
                task,
                extractor,
                setting.config,
                setting.results,
                stop,
                lambda: say(Frame(name)),
                device,
            )
        except BusyError:
            say(Done(name, None))
        except Exception as error:  # noqa: BLE001 - it is raised in the end, with the sequence's name
            say(Failed(name, error))
        else:
            say(Done(name, record))

    return do


def serve() -> None:
    """Do tasks from stdin, the setting first, and say on stdout how it goes; prints go to stderr."""
    tasks, events = own_pipes()
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(tasks, waiting), daemon=True).start()

    def say(event: Event) -> None:
        try:
            pickle.dump(event, events)
            events.flush()
        except BrokenPipeError:  # nobody is there any more
            os._exit(0)

    try:
        do = labeller(waiting.get())
    except Exception as error:  # noqa: BLE001 - it is raised again in the parent
        say(Unfit(error))
        return
    while True:
        do(waiting.get(), never, lambda event: say(_portable(event)))


def _receive(tasks: BinaryIO, waiting: "queue.SimpleQueue[Any]") -> None:
    """Pass tasks on; when there is nobody any more who could send one, end the whole process."""
    try:
        while True:
            waiting.put(pickle.load(tasks))  # noqa: S301 - it comes from our own parent process
    finally:
        os._exit(0)


def _portable(event: Event) -> Event:
    """An error with its traceback in words, which would not go through a pipe otherwise."""
    if not isinstance(event, Failed) or type(event.error) in (HvcError, PlaceError):
        return event
    words = "".join(traceback.format_exception(event.error))
    try:
        pickle.loads(pickle.dumps(event.error))  # noqa: S301 - our own
        event.error.add_note(f"in a worker process:\n{words}")
        return event
    except Exception:  # noqa: BLE001 - some exceptions do not survive the way
        return Failed(event.name, RuntimeError(words))
