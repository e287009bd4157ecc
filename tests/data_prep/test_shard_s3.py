"""Sharding to a real S3 server, and reading it back."""

import io
import json
import subprocess
import sys
import tempfile
import time

import pytest
import webdataset

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, never
from hvc.base.storage import StorageError, open_store
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify

pytestmark = pytest.mark.services

PROGRAM = """
import json, sys
from hvc.base.stage import Provenance, never
from hvc.data_prep.shard import ShardConfig, run
if __name__ == "__main__":
    run(ShardConfig.parse(json.loads(sys.argv[1])), never, Provenance())
"""


def shard(root, address, stop=never, **options):
    options = {"workers": 2, "min_shards": 4, **options}
    inputs = [{"source": "folder", "address": str(root)}]
    config = ShardConfig.parse({"inputs": inputs, "output": str(address), **options})
    return run(config, stop, Provenance())


def options(root, address, **more):
    inputs = [{"source": "folder", "address": str(root)}]
    return {"inputs": inputs, "output": address, "workers": 2, **more}


def objects(address):
    store = open_store(address)
    return {name: store.read(name) for name in store.names()}


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_bytes_as_in_a_folder(s3_env, pictures, tmp_path):
    address = s3_env.bucket("same") + "/some/prefix"
    root = pictures(20)
    (root / "bad.jpg").write_bytes(b"")
    remote = shard(root, address, max_bad=1).report
    local = shard(root, tmp_path / "out", max_bad=1).report
    assert remote == {**local, "dataset": address}
    assert objects(address) == files(tmp_path / "out")
    assert shard(root, address, max_bad=1).report == {**remote, "already_done": True}


def test_webdataset_reads_a_boto3_stream(s3_env, pictures):
    address = s3_env.bucket("stream")
    root = pictures(20)
    shard(root, address)
    bucket = address.removeprefix("s3://")
    seen = set()
    for entry in read_manifest(open_store(address)).shards:
        body = s3_env.client().get_object(Bucket=bucket, Key=entry.path)["Body"]
        members = webdataset.tariterators.tar_file_iterator(io.BytesIO(body.read()))
        for sample in webdataset.tariterators.group_by_keys({**f, "__url__": address} for f in members):
            path = json.loads(sample["json"])["path"]
            assert sample["jpg"] == (root / path).read_bytes()
            seen.add(path)
    assert len(seen) == 20


def test_verify_finds_damage(s3_env, pictures):
    address = s3_env.bucket("damage")
    shard(pictures(20), address)
    assert verify(address).ok
    store = open_store(address)
    data = bytearray(store.read("shard-000000.tar"))
    data[1000] ^= 1
    store.write("shard-000000.tar", bytes(data))
    store.write("shard-000001.tar", bytes(data[:-1]))
    store.delete("shard-000002.tar")
    store.write("shard-000009.tar", b"")
    problems = verify(address).problems
    assert [problem.partition(":")[0] for problem in problems] == [
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
        "shard-000009.tar",
    ]


def test_killed_there_is_no_dataset_and_the_next_run_finishes_it(s3_env, pictures, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    address = s3_env.bucket("killed")
    root = pictures(40, width=1200, height=900)
    config = options(root, address, min_shards=12)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(config)])
    store = open_store(address)
    deadline = time.monotonic() + 60
    while not list(store.names("shard-")):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    assert not store.exists("manifest.json")
    assert list(scratch.glob("hvc-shard-*"))
    with pytest.raises(HvcError, match="was sharding finished"):
        verify(address)
    assert shard(root, address, min_shards=12).outcome is Outcome.DONE
    assert not list(scratch.glob("hvc-shard-*"))
    shard(root, tmp_path / "out", min_shards=12)
    assert objects(address) == files(tmp_path / "out")


def test_two_runs_on_one_machine_do_not_share_a_work_folder(s3_env, pictures, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    address = s3_env.bucket("twice")
    root = pictures(40, width=1200, height=900)
    config = options(root, address, min_shards=12)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, json.dumps(config)])
    deadline = time.monotonic() + 60
    while not list(scratch.glob("hvc-shard-*-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
    with pytest.raises(HvcError, match="another run writes here"):
        shard(root, address, min_shards=12)
    assert process.wait(60) == 0
    assert verify(address).ok
    assert not list(scratch.glob("hvc-shard-*"))


def test_stopped_and_another_plan(s3_env, pictures, tmp_path):
    address = s3_env.bucket("stopped")
    root = pictures(20)
    answers = iter([False] * 3)
    stopped = shard(root, address, stop=lambda: next(answers, True), workers=1, min_shards=10)
    assert stopped.outcome is Outcome.STOPPED
    shard(root, address)
    shard(root, tmp_path / "out")
    assert objects(address) == files(tmp_path / "out")


def test_wrong_credentials(s3_env, pictures, monkeypatch):
    address = s3_env.bucket("locked")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"access denied.*AWS_SECRET_ACCESS_KEY"):
        shard(pictures(3), address)
    with pytest.raises(StorageError, match="access denied"):
        verify(address)


def test_a_missing_bucket(s3_env, pictures):
    with pytest.raises(StorageError, match="no such bucket"):
        shard(pictures(3), "s3://nowhere-at-all/x")
    with pytest.raises(HvcError, match="no dataset at s3://nowhere-at-all/x"):
        verify("s3://nowhere-at-all/x")


def test_no_server(s3_env, pictures, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL_S3"):
        shard(pictures(3), "s3://bucket/x")
