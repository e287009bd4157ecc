"""Where scores stand in a run: a number keeps the name of what it was measured on."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path


def subset_suffix(chosen: Iterable[str], listed: Iterable[str]) -> str:
    """Nothing when those chosen are all that are listed, in any order, else `-subset-` and their digest."""
    names = sorted(set(chosen))
    if names == sorted(set(listed)):
        return ""
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return f"-subset-{digest[:6]}"


def metrics_path(benchmark: str, data: str, preset: str) -> str:
    """`eval/BENCHMARK/PRESET`; a person's own folder is a benchmark named `folder-` and its last part."""
    if benchmark == "folder":
        last = Path(os.path.abspath(data)).name  # noqa: PTH100 - `..` goes, symbolic links keep their name
        benchmark = "folder-" + re.sub(r"[^A-Za-z0-9._-]+", "-", last)
    return f"eval/{benchmark}/{preset}"
