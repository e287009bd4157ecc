"""Sharding as a process of its own, to be killed."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys
from hvc.base.stage import Provenance, StopFlag
from hvc.data_prep.shard import ShardConfig, run
if __name__ == "__main__":
    result = run(ShardConfig.parse(json.loads(sys.argv[1])), StopFlag().listen(), Provenance())
    sys.exit(result.exit_code)
"""
DIED = "a run that nobody disturbed failed"


def options(root: Path, output: Path | str, **more: Any) -> dict[str, Any]:
    """A config as plain data."""
    inputs = [{"source": "folder", "address": str(root)}]
    return {"inputs": inputs, "output": str(output), "workers": 2, **more}


def start(config: dict[str, Any], **env: str) -> "subprocess.Popen[bytes]":
    """Begin a run, in a session of its own."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(config)]
    return subprocess.Popen(command, start_new_session=True, env={**os.environ, **env})


def complete(config: dict[str, Any], **env: str) -> float:
    """Run undisturbed to the end; seconds that it took."""
    begin = time.monotonic()
    assert start(config, **env).wait(timeout=120) == 0, DIED
    return time.monotonic() - begin


def kill_at_random(rng: random.Random, config: dict[str, Any], seconds: float, **env: str) -> None:
    """Begin a run and end it by SIGKILL within `seconds`, unless it is done by then."""
    process = start(config, **env)
    time.sleep(rng.uniform(0, seconds))
    process.kill()
    process.wait()


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[bytes]") -> None:
    """Until something shows that the run is in the middle of its work."""
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, "it ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def differences(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """Names of the files that are missing, surplus or of another content."""
    told = [f"{name}: {'surplus' if name in found else 'missing'}" for name in found.keys() ^ wanted.keys()]
    common = found.keys() & wanted.keys()
    return sorted(told + [f"{name}: differs" for name in common if found[name] != wanted[name]])
