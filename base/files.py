"""Small local files that are whole or not there at all."""

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hvc.base.errors import PlaceError

_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


def put_if_absent(made: Path, path: Path) -> None:
    """Give a finished file the name `path`, on the same file system, unless that is taken.

    FileExistsError if it is; `made` may be there afterwards. Where there are no hard links (some network
    and FUSE file systems) the name is taken first, empty, and the content follows at once: still only
    one of two can have it.
    """
    try:
        os.link(made, path)  # fails if the name is taken, unlike rename
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        made.replace(path)


def write_atomic(path: Path, text: str) -> None:
    """Write or replace a text file at once; PlaceError names the file when that fails."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise PlaceError(f"cannot write {path}: {error.strerror}; free space or choose another") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no file, or no whole object in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
