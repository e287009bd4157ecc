"""Who does what: sequences over parts, over processes, and how many processes a machine can take.

Pure functions of plain data, so that parts on different machines agree without a word.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

_BASE_BYTES = 800_000_000
"""What a process takes for the interpreter, torch and one image's passage through a network."""
_CHANNELS = 256
_MERGED_CHANNELS = 1024
_SPARE = 0.9
_PIXELS_WORTH_A_PROCESS = 8_000_000
"""About 20 frames of 854 x 480."""


def longest_first(lengths: Mapping[str, int]) -> list[str]:
    """Names by falling number of frames, so that no long one begins when the others are done."""
    return sorted(lengths, key=lambda name: (-lengths[name], name))


def share(lengths: Mapping[str, int], parts: int, part: int) -> list[str]:
    """The sequences of one part out of `parts`, longest first: each goes to whoever has least so far.

    No part has more than 4/3 of what the best division would give the fullest.
    """
    loads = [(0, number) for number in range(parts)]
    mine = []
    for name in longest_first(lengths):
        load, number = heapq.heappop(loads)
        heapq.heappush(loads, (load + lengths[name], number))
        if number == part:
            mine.append(name)
    return mine


def worker_bytes(size: tuple[int, int], context: int, *, merged: bool = False) -> int:
    """About what one process needs for videos of (height, width) pixels with so much context."""
    cells = math.ceil(size[0] / 8) * math.ceil(size[1] / 8)
    channels = _CHANNELS + (_MERGED_CHANNELS if merged else 0)
    return _BASE_BYTES + 4 * channels * cells * (context + 2)


def worker_count(
    asked: int, sequences: int, cores: int, free_bytes: int, each_bytes: int, pixels: int
) -> int:
    """Processes to start: as asked for (0: what work, cores and memory allow), never more than sequences.

    Args:
        pixels: of all frames; a process that would have little to do takes longer to begin than to work.
    """
    if asked:
        return max(1, min(asked, sequences))
    by_memory = int(_SPARE * free_bytes / each_bytes)
    return max(1, min(cores, sequences, by_memory, pixels // _PIXELS_WORTH_A_PROCESS))


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the control group that it is in."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for folder in _control_groups():
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = int((folder / "memory.current").read_text())
        except (OSError, ValueError):  # not there, or none of ours to read
            continue
        if limit.isdecimal():
            free = min(free, max(0, int(limit) - used))
    return free


def _control_groups() -> Sequence[Path]:
    """This process's control group (version 2) and those around it."""
    try:
        line = Path("/proc/self/cgroup").read_text().splitlines()[-1]
    except (OSError, IndexError):  # not on Linux
        return []
    root = Path("/sys/fs/cgroup")
    own = root / line.rpartition(":")[2].lstrip("/")
    return [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
