"""Killed without warning at any moment and run again, the result is the same to the byte."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, never
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify

PROGRAM = """
import json, sys
from hvc.base.stage import Provenance, StopFlag
from hvc.data_prep.shard import ShardConfig, run
if __name__ == "__main__":
    result = run(ShardConfig.parse(json.loads(sys.argv[1])), StopFlag().listen(), Provenance())
    sys.exit(result.exit_code)
"""


def options(root, output, **more):
    return {"input": str(root), "output": str(output), "min_shards": 30, "workers": 2, **more}


def start(config):
    command = [sys.executable, "-c", PROGRAM, json.dumps(config)]
    return subprocess.Popen(command, start_new_session=True)


def finish(config):
    return run(ShardConfig.parse(config), never, Provenance())


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "it ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def family(process):
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive


@pytest.fixture
def large_pictures(pictures) -> Path:
    return pictures(60, width=1200, height=900)


def test_sigkill_after_the_first_shard(large_pictures, tmp_path):
    config = options(large_pictures, tmp_path / "out")
    process = start(config)
    wait_for(lambda: list((tmp_path / "out").glob("shard-*.tar")), process)
    children = family(process)
    process.kill()
    process.wait()
    assert children
    assert all_gone(children), "worker processes outlived the run"
    assert not (tmp_path / "out/manifest.json").exists()
    assert finish(config).outcome is Outcome.DONE
    finish(options(large_pictures, tmp_path / "reference"))
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_dir()] == []


@pytest.mark.parametrize("everyone", [False, True])
def test_sigterm_saves_and_exits_75(large_pictures, tmp_path, everyone):
    config = options(large_pictures, tmp_path / "out")
    process = start(config)
    wait_for(lambda: list((tmp_path / "out").glob("shard-*.tar")), process)
    if everyone:  # as a cluster does it
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()
    assert process.wait(timeout=30) == 75
    assert not (tmp_path / "out/manifest.json").exists()
    assert not list((tmp_path / "out").glob(".progress/work-*"))
    finish(config)
    finish(options(large_pictures, tmp_path / "reference"))
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")


def test_a_second_run_leaves_the_first_alone(large_pictures, tmp_path):
    config = options(large_pictures, tmp_path / "out")
    first = start(config)
    wait_for(lambda: list((tmp_path / "out/.progress").glob("work-*")), first)
    with pytest.raises(HvcError, match="another run writes here"):
        finish(config)
    with pytest.raises(HvcError, match="another run writes here"):
        finish({**config, "seed": 1})
    assert first.poll() is None, "it ended before the others came"
    assert first.wait(timeout=120) == 0
    finish(options(large_pictures, tmp_path / "reference"))
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")
    assert not (tmp_path / "out/.progress").exists()


@pytest.mark.skipif("HVC_SOAK" not in os.environ, reason="long: `make soak` runs it")
def test_soak_kills_at_random_moments(large_pictures, tmp_path):
    finish(options(large_pictures, tmp_path / "reference"))
    rng = random.Random(0)
    for trial in range(20):
        config = options(large_pictures, tmp_path / f"out{trial}")
        for _ in range(rng.randint(1, 4)):
            process = start(config)
            time.sleep(rng.uniform(0.3, 6))
            process.kill()
            process.wait()
        finish(config)
        assert contents(tmp_path / f"out{trial}") == contents(tmp_path / "reference")


def test_a_full_disk_is_explained_and_the_next_run_goes_on(large_pictures, tmp_path):
    config = options(large_pictures, tmp_path / "out", min_shards=3)
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", limited, json.dumps(config)], capture_output=True, text=True, check=False
    )
    assert "shard-00000" in done.stderr.splitlines()[-1]
    assert "cannot write" in done.stderr
    assert "run the same command again" in done.stderr
    finish(config)
    assert verify(str(tmp_path / "out")).ok
