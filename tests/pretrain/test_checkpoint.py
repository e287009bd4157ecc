"""Contract 2: a checkpoint exists only when it is complete, in a folder or a bucket; damage is found."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys

import pytest
import torch
from checkpoint_data import assert_intact, snapshot, write, write_version_1

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.base.store import StorageError
from hvc.pretrain.checkpoints.checkpoint import (
    DamagedError,
    clear_unfinished,
    complete_steps,
    merge_buffers,
    newest,
    open_checkpoint,
    verified,
)
from hvc.pretrain.weights.encoder_file import read_encoder


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.services)])
def address(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "checkpoints")
    return request.getfixturevalue("s3_env").bucket("checkpoints") + "/run/checkpoints"


def test_what_was_written_is_read(address, tmp_path):
    assert newest(address) is None
    written = write(address, 10)
    found = newest(address)
    assert found == written
    assert found.address == f"{address}/step-00000010"
    assert_intact(found)
    assert torch.equal(found.buffers(1, 2)["rng/torch"], snapshot(10).buffers[1]["rng/torch"])
    state, metadata = read_encoder(found.encoder_path(tmp_path))
    assert metadata.step == 10
    assert torch.equal(state["conv1.weight"], snapshot(10).encoder["conv1.weight"])
    names = {name.rpartition("/")[2] for name in open_store(address).names()}
    assert names == {
        "COMPLETE",
        "state.json",
        "model.safetensors",
        "optimizer.safetensors",
        "buffers.safetensors",
        "encoder.safetensors",
    }


def test_without_its_marker_it_does_not_exist_and_is_cleared(address):
    write(address, 10)
    write(address, 20)
    store = open_store(address)
    store.write("notes.txt", b"mine")
    store.write("step-other/x", b"mine")
    store.delete("step-00000020/COMPLETE")
    assert complete_steps(address) == [10]
    with pytest.raises(HvcError, match="not a complete checkpoint"):
        open_checkpoint(f"{address}/step-00000020")
    clear_unfinished(address)
    assert not list(store.names("step-00000020"))
    assert store.exists("notes.txt")
    assert store.exists("step-other/x")
    assert_intact(newest(address))


def test_the_newest_intact_one_is_taken(address, caplog):
    for step in (10, 20, 30):
        write(address, step)
    store = open_store(address)
    model = "step-00000030/model.safetensors"
    store.write(model, store.read(model)[:-1] + b"x")
    store.delete("step-00000020/optimizer.safetensors")
    found = newest(address)
    assert found.step == 10
    assert_intact(found)
    assert "step-00000030/model.safetensors: altered" in caplog.text
    assert "step-00000020/optimizer.safetensors: missing" in caplog.text


def test_what_is_not_checked_at_once_is_checked_when_it_is_read(address):
    write(address, 10)
    store = open_store(address)
    model = "step-00000010/model.safetensors"
    store.write(model, bytes(len(store.read(model))))
    found = open_checkpoint(f"{address}/step-00000010", files=["encoder.safetensors"])
    assert found == verified(address, 10)
    assert found.tensors("optimizer").keys() == {"w/exp_avg", "step"}
    with pytest.raises(DamagedError, match=r"model\.safetensors: altered"):
        found.tensors("model")


def test_one_of_the_same_step_is_replaced(address):
    write(address, 10, ranks=1)
    store = open_store(address)
    store.write("step-00000010/foreign", b"x")
    second = write(address, 10, ranks=3)
    assert newest(address) == second
    assert_intact(second, ranks=3)
    assert not store.exists("step-00000010/foreign")


@pytest.mark.services
def test_a_bucket_that_cannot_be_asked_is_no_empty_one(s3_env, monkeypatch):
    address = s3_env.bucket("locked") + "/c"
    write(address, 10)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with pytest.raises(StorageError, match="access denied"):
        newest(address)


@pytest.mark.services
def test_a_bucket_that_is_not_there_is_named(s3_env):
    with pytest.raises(HvcError, match=r"nobody-made-this.*no such bucket"):
        newest("s3://nobody-made-this/c")


def test_empty_folders_of_kills_and_of_version_1_are_cleared(tmp_path):
    write(tmp_path, 10)
    for name in ("step-00000020", ".step-00000020.1.tmp", ".step-00000010.old.tmp"):
        (tmp_path / name).mkdir()
    clear_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
    clear_unfinished(tmp_path / "nowhere")


@pytest.mark.services
def test_the_unfinished_uploads_of_kills_are_cleared(s3_env):
    address, client = s3_env.bucket("uploads") + "/c", s3_env.client()
    write(address, 10)
    for key in ("c/step-00000020/model.safetensors", "other/model.safetensors"):
        client.create_multipart_upload(Bucket="uploads", Key=key)
    clear_unfinished(address)
    left = client.list_multipart_uploads(Bucket="uploads")["Uploads"]
    assert [upload["Key"] for upload in left] == ["other/model.safetensors"]
    assert_intact(newest(address))


def test_version_1_is_read(tmp_path):
    folder = write_version_1(tmp_path, 7, world_size=2)
    found = newest(tmp_path)
    assert (found.step, found.marker.version) == (7, 1)
    wanted = snapshot(7)
    assert found.state == wanted.state
    assert torch.equal(found.tensors("model")["online.w"], wanted.model["online.w"])
    for rank in range(2):
        own = found.buffers(rank, 2)
        assert own.keys() == wanted.buffers[rank].keys()
        assert all(torch.equal(own[key], value) for key, value in wanted.buffers[rank].items())
    assert found.buffers(0, 3)["bn.running_mean"].tolist() == [0.5, 0.5]
    assert read_encoder(found.encoder_path(tmp_path))[1].step == 7
    path = folder / "buffers-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"buffers-00001\.safetensors: \d+ bytes, not"):
        open_checkpoint(folder)


def test_a_newer_version_is_refused_and_not_passed_over(tmp_path):
    write(tmp_path, 10)
    path = tmp_path / "step-00000010" / "COMPLETE"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"version": 3}))
    with pytest.raises(DamagedError):  # the check says that somebody changed the number
        open_checkpoint(path.parent)
    del content["check"]
    newer = content | {"version": 3, "surprise": 1}
    check = hashlib.sha256(json.dumps(newer, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(newer | {"check": check}))
    with pytest.raises(HvcError, match="version 3 is newer than this hvc"):
        newest(tmp_path)


def test_merged_statistics_are_those_of_all_data():
    torch.manual_seed(0)
    parts = [torch.randn(500, 3) * (n + 1) + n for n in range(3)]
    ranks = [{"bn.running_mean": x.mean(0), "bn.running_var": x.var(0, correction=0)} for x in parts]
    merged = merge_buffers(ranks)
    together = torch.cat(parts)
    torch.testing.assert_close(merged["bn.running_mean"], together.mean(0))
    torch.testing.assert_close(merged["bn.running_var"], together.var(0, correction=0))


def test_another_number_of_ranks_gets_merged_buffers_and_no_generator(tmp_path):
    done = write(tmp_path, 7, ranks=2)
    assert done.buffers(1, 2)["bn.running_mean"].tolist() == [1.0, 1.0]
    merged = done.buffers(0, 3)
    assert merged.keys() == {"bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
    assert merged["bn.running_mean"].tolist() == [0.5, 0.5]
    assert merged["bn.running_var"].tolist() == [1.25, 1.25]
    assert merged["bn.num_batches_tracked"].item() == 8


@pytest.mark.services
def test_the_copy_of_a_bucket_goes_with_the_checkpoint(s3_env):
    address = s3_env.bucket("copies") + "/c"
    write(address, 10)
    found = newest(address)
    path = found.path("model.safetensors")
    assert path.exists()
    del found
    assert not path.exists()


def test_names_that_leave_the_folder_are_damage(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    write(tmp_path, 10)
    folder = write_version_1(tmp_path, 20)
    (tmp_path / "secret").write_text("x")
    content = json.loads((folder / "COMPLETE").read_text())
    content["files"]["../secret"] = {"bytes": 1, "sha256": "0" * 64}
    (folder / "COMPLETE").write_text(json.dumps(content))
    assert newest(tmp_path).step == 10
    assert "COMPLETE: damaged" in caplog.text


@pytest.mark.services
def test_copies_from_a_bucket_go_with_a_killed_process(s3_env, tmp_path):
    address = s3_env.bucket("killed-copies") + "/c"
    write(address, 10)
    program = f"""
import os, signal
from hvc.pretrain.checkpoints.checkpoint import newest
found = newest({address!r})
assert found.tensors("model").keys() == {{"online.w", "target.w"}}
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
