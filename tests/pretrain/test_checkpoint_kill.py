"""SIGKILL at any moment of writing, pruning or clearing: the newest good checkpoint is always found.

`HVC_SOAK=1` kills a thousand times.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = bool(os.environ.get("HVC_SOAK"))
PROGRAM = Path(__file__).parents[1] / "checkpoint_kills.py"


def kill(address, trials, seconds, seed=0):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), address, str(trials), str(seed), str(seconds)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.soak
def test_kills_in_a_folder(tmp_path):
    ends = kill(str(tmp_path / "c"), 1000 if SOAK else 40, 0.12)
    assert ends["steps"] > 20
    assert ends["writing"] > 5
    if SOAK:
        assert ends["deleting"] > 5


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.soak
def test_kills_with_a_bucket(s3_env):
    ends = kill(s3_env.bucket("kills") + "/c", 200 if SOAK else 6, 3.0)
    assert ends["steps"] > 2
