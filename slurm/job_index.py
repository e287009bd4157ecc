"""Where this user's submissions are, so that `hvc jobs` finds them from any folder.

The folders that submissions were made below, one a line in `~/.local/state/hvc/job-folders` (or below
XDG_STATE_HOME).
"""

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)
DEFAULT = Path("slurm-jobs")


def index_file() -> Path:
    """The list's place; nothing is made."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "hvc" / "job-folders"


def remember(parent: Path) -> None:
    """Put a folder that submissions are made below on the list, once; never a reason for a failure."""
    line = str(parent.absolute())
    try:
        path = index_file()
        if line in _listed(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:  # one short write: two at once both stay whole
            file.write(line + "\n")
    except (OSError, RuntimeError) as error:  # no home, or one that cannot be written to
        _log.info("hvc jobs will not find %s from other folders: %s", line, error)


def job_folders() -> list[Path]:
    """The folders on the list that are there, and the default one of here."""
    try:
        listed = _listed(index_file())
    except (OSError, RuntimeError):
        listed = []
    found = [*map(Path, listed), DEFAULT.absolute()]
    return [path for path in dict.fromkeys(found) if path.is_dir()]


def _listed(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
