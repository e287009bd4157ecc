"""The inside of a worker process: tasks come in on one pipe, answers go out on another.

These are plain child processes. They leave no temporary folder, lock or server behind, whoever is
killed when; a worker ends by itself as soon as the process that started it is gone.
"""

import importlib
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from typing import Any, BinaryIO

COMMAND = "import sys; sys.path[:] = sys.argv[2:]; from hvc.data_prep.worker import serve; serve()"
"""What Python is started with; the arguments are modules to load (comma-separated) and its path."""


def serve() -> None:
    """Answer tasks from stdin on stdout for ever; what anybody prints goes to stderr."""
    tasks, answers = own_pipes()
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(tasks, waiting), daemon=True).start()
    for module in filter(None, sys.argv[1].split(",")):
        importlib.import_module(module)
    while True:
        _send(answers, *_answer(waiting.get()))


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """What were stdin and stdout of a worker: nobody else reads or writes them, and signals do nothing.

    What is printed from now on goes to stderr.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to stop
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return tasks, answers


def _receive(tasks: BinaryIO, waiting: "queue.SimpleQueue[Any]") -> None:
    """Pass tasks on; when there is nobody any more who could send one, end the whole process."""
    try:
        while True:
            size = int.from_bytes(tasks.read(8), "little")
            data = tasks.read(size)
            if not size or len(data) < size:
                break
            waiting.put(data)
    finally:
        os._exit(0)


def _answer(task: bytes) -> tuple[bool, Any]:
    try:
        function, argument = pickle.loads(task)  # noqa: S301 (it comes from our own parent process)
        return True, function(argument)
    except Exception as error:  # noqa: BLE001 (it is raised again in the parent)
        return False, (error, traceback.format_exc())


def _send(answers: BinaryIO, good: bool, value: Any) -> None:
    try:
        data = pickle.dumps((good, value))
    except Exception as error:  # noqa: BLE001 (neither an answer nor an exception has to be picklable)
        lost = RuntimeError(f"a task ended with {value!r}, which cannot be sent: {error}")
        data = pickle.dumps((False, (lost, "")))
    try:
        answers.write(data)
        answers.flush()
    except BrokenPipeError:  # the parent was killed: nobody waits for this any more
        os._exit(0)
