"""Sharding to a real S3 server, and reading it back."""

import hashlib
import io
import json
import tempfile

import pytest
import webdataset
from killing import options, start, wait_for

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, never
from hvc.base.storage import S3Store, StorageError, open_store
from hvc.data_prep.claim import Holder
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify

pytestmark = pytest.mark.services


def shard(root, address, stop=never, **options):
    options = {"workers": 2, "min_shards": 4, **options}
    inputs = [{"source": "folder", "address": str(root)}]
    config = ShardConfig.parse({"inputs": inputs, "output": str(address), **options})
    return run(config, stop, Provenance())


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
    assert [problem.file for problem in verify(address).problems] == [
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
        "shard-000009.tar",
    ]


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where shards lie on their way to the server."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_killed_there_is_no_dataset_and_the_next_run_finishes_it(s3_env, large_pictures, tmp_path, scratch):
    address = s3_env.bucket("killed")
    process = start(options(large_pictures, address, min_shards=12))
    store = open_store(address)
    wait_for(lambda: list(store.names("shard-")), process)
    process.kill()
    process.wait()
    assert not store.exists("manifest.json")
    assert list(scratch.glob("hvc-shard-*"))
    with pytest.raises(HvcError, match="was sharding finished"):
        verify(address)
    assert shard(large_pictures, address, min_shards=12).outcome is Outcome.DONE
    assert list(scratch.iterdir()) == []
    shard(large_pictures, tmp_path / "out", min_shards=12)
    assert objects(address) == files(tmp_path / "out")


def test_a_second_run_is_refused_and_the_first_goes_on(s3_env, large_pictures, scratch):
    address = s3_env.bucket("twice")
    process = start(options(large_pictures, address, min_shards=12))
    store = open_store(address)
    wait_for(lambda: list(store.names("shard-")), process)
    with pytest.raises(HvcError, match=rf"another run writes here \(process {process.pid} on "):
        shard(large_pictures, address, min_shards=12)
    assert process.wait(60) == 0
    assert verify(address).ok
    assert list(scratch.iterdir()) == []
    assert list(store.names(".progress/")) == []


def test_a_run_that_was_taken_over_ends_before_the_manifest(s3_env, pictures):
    """Its shards are there, but somebody else holds the claim by now."""
    address = s3_env.bucket("lost")
    root = pictures(8)
    store = open_store(address)
    other = Holder.here().model_copy(update={"host": "far", "machine": "far"})

    def take_over():
        store.write(".progress/claim.json", other.model_dump_json().encode())
        return False

    with pytest.raises(HvcError, match=r"taken over by process .* on far"):
        shard(root, address, stop=take_over, workers=1)
    assert not store.exists("manifest.json")
    assert Holder.model_validate_json(store.read(".progress/claim.json")) == other


def test_a_shard_is_trusted_only_with_the_size_and_hash_that_were_noted(s3_env, pictures, tmp_path):
    address = s3_env.bucket("trust")
    root = pictures(20)
    shard(root, tmp_path / "out", min_shards=5)
    answers = iter([False] * 4)
    stopped = shard(root, address, stop=lambda: next(answers, True), workers=1, min_shards=5)
    assert stopped.report["shards_done"] == 4
    store = open_store(address)
    same_size = tmp_path / "same-size"
    same_size.write_bytes(bytes(store.size("shard-000000.tar")))
    store.upload("shard-000000.tar", same_size, hashlib.sha256(same_size.read_bytes()).hexdigest())
    store.write("shard-000001.tar", store.read("shard-000001.tar"))  # right, but nobody noted its hash
    store.delete("shard-000002.idx")
    made = []

    def watch():
        made.append(True)
        return False

    shard(root, address, stop=watch, min_shards=5)
    assert len(made) == 4, "three are made again, the fourth stays, the fifth was missing"
    assert objects(address) == files(tmp_path / "out")


def test_parts_from_several_runs_and_their_join(s3_env, pictures, tmp_path, scratch):
    address = s3_env.bucket("parts")
    root = pictures(30)
    more = {"min_shards": 7, "dedupe": True}
    shard(root, tmp_path / "out", **more)
    processes = [start(options(root, address, parts=3, part=part, **more)) for part in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    store = open_store(address)
    assert not store.exists("manifest.json")
    assert len([name for name in store.names("shard-") if name.endswith(".tar")]) == 7
    shard(root, address, parts=3, **more)
    assert objects(address) == files(tmp_path / "out")
    assert list(scratch.iterdir()) == []


def test_a_finished_dataset_is_only_read(s3_env, pictures, monkeypatch):
    address = s3_env.bucket("done")
    root = pictures(6)
    shard(root, address)
    for method in ("write", "create", "upload", "delete"):
        monkeypatch.setattr(S3Store, method, None)
    assert shard(root, address).report["already_done"]


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
