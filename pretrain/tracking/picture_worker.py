"""Pictures are drawn in a thread of their own: a step waits for none."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

LAST_SECONDS = 20.0
"""How long the end of a run waits for a picture that is being drawn."""
Render = Callable[[], Image.Image]
_log = logging.getLogger(__name__)


class PictureWorker:
    """Draws one picture after the other and says when each is on disk."""

    def __init__(self, drawn: Callable[[str, int, Path], None]) -> None:
        """`drawn(name, step, path)` is called in the worker's thread once a file is whole."""
        self._drawn = drawn
        self._queue: queue.SimpleQueue[tuple[str, int, Path, Render] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._open = 0
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def draw(self, name: str, step: int, path: Path, render: Render) -> None:
        """Draw it soon; a picture that fails is a warning."""
        with self._change:
            self._open += 1
        self._queue.put((name, step, path, render))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
            self._thread.start()

    def finish(self, seconds: float) -> int:
        """Wait at most so long, then draw no more; how many were not drawn.

        The one that is being drawn is waited for: a thread in the middle of PyTorch's work would abort
        the process when it exits.
        """
        deadline = time.monotonic() + seconds
        with self._change:
            while self._open and (left := deadline - time.monotonic()) > 0:
                self._change.wait(left)
            undrawn = self._open
        self._closing.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(LAST_SECONDS)
        return undrawn

    def _run(self) -> None:
        while (item := self._queue.get()) is not None and not self._closing.is_set():
            name, step, path, render = item
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".{path.name}.tmp")
                render().save(temporary, "PNG")
                temporary.replace(path)
                self._drawn(name, step, path)
            except Exception as error:  # noqa: BLE001 - a picture never ends a run
                _log.warning(
                    "picture %s of step %d was not made: %s: %s", name, step, type(error).__name__, error
                )
            del item, render  # they may hold a batch
            with self._change:
                self._open -= 1
                self._change.notify_all()
