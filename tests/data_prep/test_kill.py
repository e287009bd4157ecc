"""Killed without warning at any moment and run again, the result is the same to the byte."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from killing import PROGRAM, complete, contents, differences, kill_at_random, options, start, wait_for

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, never
from hvc.base.storage import open_store
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify

SOAK = "HVC_SOAK" in os.environ
LOCAL_TRIALS, S3_TRIALS = (100, 100) if SOAK else (6, 4)


def finish(config):
    return run(ShardConfig.parse(config), never, Provenance())


def family(process):
    return psutil.Process(process.pid).children(recursive=True)


def all_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive


def test_sigkill_after_the_first_shard(large_pictures, tmp_path):
    config = options(large_pictures, tmp_path / "out", min_shards=30)
    process = start(config)
    wait_for(lambda: list((tmp_path / "out").glob("shard-*.tar")), process)
    children = family(process)
    process.kill()
    process.wait()
    assert children
    assert all_gone(children), "worker processes outlived the run"
    assert not (tmp_path / "out/manifest.json").exists()
    assert finish(config).outcome is Outcome.DONE
    finish(options(large_pictures, tmp_path / "reference", min_shards=30))
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_dir()] == []


@pytest.mark.parametrize("everyone", [False, True])
def test_sigterm_saves_and_exits_75(large_pictures, tmp_path, everyone):
    config = options(large_pictures, tmp_path / "out", min_shards=30)
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
    finish(options(large_pictures, tmp_path / "reference", min_shards=30))
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")


def test_a_second_run_leaves_the_first_alone(large_pictures, tmp_path):
    config = options(large_pictures, tmp_path / "out", min_shards=30)
    first = start(config)
    wait_for(lambda: list((tmp_path / "out/.progress").glob("work-*")), first)
    with pytest.raises(HvcError, match="another run writes here"):
        finish(config)
    with pytest.raises(HvcError, match="another run writes here"):
        finish({**config, "seed": 1})
    assert first.poll() is None, "it ended before the others came"
    assert first.wait(timeout=120) == 0
    finish(options(large_pictures, tmp_path / "reference", min_shards=30))
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")
    assert not (tmp_path / "out/.progress").exists()


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


@pytest.fixture
def mixture(pictures):
    """Small pictures, among them duplicates and a bad one: every list has something in it."""
    root = pictures(40)
    for i in range(6):
        shutil.copy(root / "part-0/picture 0000.JPEG", root / f"again-{i}.jpg")
    (root / "bad.jpg").write_bytes(b"no image")
    return root


SMALL = {"min_shards": 12, "dedupe": True, "max_bad": 1}


def disturb(rng, config, seconds, **env):
    """Kill one to four runs, in every third trial runs of parts; then one to the end."""
    in_parts = rng.random() < 1 / 3
    for _ in range(rng.randint(1, 4)):
        some = {**config, "parts": 2, "part": rng.randrange(2)} if in_parts else config
        kill_at_random(rng, some, seconds * 1.1, **env)
    complete(config, **env)


@pytest.mark.slow
@pytest.mark.soak
def test_local_kills_at_random_moments(mixture, tmp_path):
    seconds = complete(options(mixture, tmp_path / "reference", **SMALL))
    reference = contents(tmp_path / "reference")
    assert {"rejects.jsonl", "duplicates.jsonl"} < set(reference)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    rng = random.Random(20)
    for trial in range(LOCAL_TRIALS):
        output = tmp_path / f"out{trial}"
        disturb(rng, options(mixture, output, **SMALL), seconds, TMPDIR=str(scratch))
        assert differences(contents(output), reference) == [], f"trial {trial}"
        assert [path for path in output.rglob("*") if path.is_dir()] == [], f"trial {trial}"
        assert list(scratch.iterdir()) == [], f"trial {trial}"
        shutil.rmtree(output)


@pytest.mark.services
@pytest.mark.slow
@pytest.mark.soak
def test_s3_kills_at_random_moments(s3_env, mixture, tmp_path):
    bucket = s3_env.bucket("soak")
    complete(options(mixture, tmp_path / "reference", **SMALL))
    reference = contents(tmp_path / "reference")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    seconds = complete(options(mixture, f"{bucket}/timing", **SMALL))
    rng = random.Random(21)
    for trial in range(S3_TRIALS):
        output = f"{bucket}/out{trial}"
        disturb(rng, options(mixture, output, **SMALL), seconds, TMPDIR=str(scratch))
        store = open_store(output)
        found = {name: store.read(name) for name in store.names()}
        assert differences(found, reference) == [], f"trial {trial}"
        assert list(scratch.iterdir()) == [], f"trial {trial}"
    assert open_uploads(s3_env, bucket) == []


def open_uploads(s3_env, bucket):
    answer = s3_env.client().list_multipart_uploads(Bucket=bucket.removeprefix("s3://"))
    return [upload["Key"] for upload in answer.get("Uploads", [])]


@pytest.mark.services
def test_sigkill_in_the_middle_of_a_multipart_upload(s3_env, faulty_s3, tmp_path, encode):
    """A shard of 100 MB; what the killed run had sent of it is not left behind.

    Every request of the run takes a second more, so that there is a middle.
    """
    root = tmp_path / "in"
    root.mkdir()
    noise = random.Random(0).randbytes(25_000_000)
    for i in range(4):
        (root / f"{i}.jpg").write_bytes(encode("JPEG", i) + noise)
    bucket = s3_env.bucket("multipart")
    config = options(root, f"{bucket}/out", target_mb=1000, check="none")
    slow = faulty_s3(share=1.0, kinds=("delay",))
    slow.delay = 1.0
    process = start(config)
    wait_for(lambda: open_uploads(s3_env, bucket), process)
    process.kill()
    process.wait()
    assert open_uploads(s3_env, bucket)
    slow.share = 0.0
    complete(config)
    assert open_uploads(s3_env, bucket) == []
    store = open_store(f"{bucket}/out")
    (shard,) = read_manifest(store).shards
    assert store.stored(shard.path).sha256 == shard.sha256
    assert verify(f"{bucket}/out").ok
