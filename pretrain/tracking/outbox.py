"""Files that wait in the output folder until MLflow has them, whatever becomes of their checkpoint."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from hvc.base.errors import HvcError

OUTBOX = "outbox"
ENCODER = "encoder.safetensors"


def keep_encoder(checkpoint: Any, folder: Path, name: str) -> tuple[str, str | None]:
    """Put a checkpoint's trunk into `folder`'s outbox, as a second name of the same file where possible.

    Args:
        checkpoint: A complete one, on disk or at `s3://`.
        folder: The run's output folder.
        name: Of the place in the outbox.

    Returns:
        The file there, from `folder` on, and where else on disk it is (None: nowhere).
        Raises HvcError when it cannot be read or kept.
    """
    file = f"{OUTBOX}/{name}/{ENCODER}"
    own = folder / file
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        there = checkpoint.encoder_path(own.parent)
        if there == own:
            return file, None
        own.unlink(missing_ok=True)
        try:
            os.link(there, own)
        except OSError:  # another disk
            shutil.copyfile(there, own)
    except OSError as error:
        with suppress(OSError):
            own.unlink(missing_ok=True)
        raise HvcError(f"cannot keep {own}: {error.strerror or error}") from None
    return file, str(there)


def drop(path: Path) -> None:
    """Remove a file of the outbox, and what is empty then."""
    with suppress(OSError):
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
