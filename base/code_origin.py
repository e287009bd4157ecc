"""Which commit code comes from: asked of git in a checkout, read from a note beside a copy of it."""

import subprocess
from pathlib import Path

from hvc.base.files import read_json

NOTE = "origin.json"
"""File beside the rooms of a copy that says what git said where the copy was made."""


def code_origin(root: Path) -> dict[str, str]:
    """`code.commit` and `code.dirty` (true, false) of the code in `root`; empty where nobody knows."""
    if not (root / ".git").exists():
        return {key: str(value) for key, value in (read_json(root / NOTE) or {}).items()}
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "-uno")
    if not commit:
        return {}
    return {"code.commit": commit.strip(), "code.dirty": str(bool(changes)).lower()}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
