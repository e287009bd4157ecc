"""Writing in the background: what fails costs one checkpoint, and what is kept is what was promised."""

import dataclasses
import logging
import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from checkpoint_data import assert_intact, snapshot, write, write_version_1

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep.claim import Holder, claimed
from hvc.data_prep.lock import TakenOverError
from hvc.pretrain.checkpoints import saver as checkpoint_saver
from hvc.pretrain.checkpoints.checkpoint import complete_steps, newest
from hvc.pretrain.checkpoints.saver import Saver
from hvc.pretrain.output import CLAIM
from hvc.pretrain.recipe import CheckpointConfig


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(checkpoint_saver, "LAST_PAUSES", (0.01, 0.01))


def saver(address, *, pinned=set, committed=lambda _: None, check=lambda: None, **config):
    return Saver(str(address), CheckpointConfig(**config), pinned=pinned, committed=committed, check=check)


def save(writer, *steps):
    for step in steps:
        writer.save(snapshot(step))
    return writer.finish()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.services)])
def address(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "checkpoints")
    return request.getfixturevalue("s3_env").bucket("saver") + "/c"


def test_each_is_told_of_and_the_promised_ones_stay(address):
    told = []
    writer = saver(
        address, pinned=lambda: {2}, committed=lambda done: told.append(done.step), keep=2, keep_every=4
    )
    last = save(writer, *range(1, 8))
    assert told == [1, 2, 3, 4, 5, 6, 7]
    assert complete_steps(address) == [2, 4, 6, 7]
    assert newest(address) == last == writer.last
    for step in (6, 7):
        assert_intact(newest(address))
        open_store(address).delete(f"step-{step:08d}/COMPLETE")
    assert writer.seconds > 0
    assert writer.failures == 0


def test_saving_returns_at_once_and_the_next_waits(tmp_path):
    gate, entered = threading.Event(), threading.Event()

    def trunk():
        entered.set()
        assert gate.wait(10)
        return {"conv1.weight": torch.ones(3)}

    with saver(tmp_path) as writer:
        writer.save(dataclasses.replace(snapshot(1), encoder=trunk))
        assert entered.wait(10)
        assert complete_steps(tmp_path) == []
        threading.Timer(0.3, gate.set).start()
        writer.save(snapshot(2))
        assert 0.2 < writer.waited < 5
        assert complete_steps(tmp_path)[0] == 1
    assert complete_steps(tmp_path) == [1, 2]
    assert newest(tmp_path).tensors("encoder").keys() == {"conv1.weight"}


def test_nothing_goes_while_aliases_are_unknown(tmp_path, caplog):
    answers = iter([None, OSError("no answer"), None, set()])

    def pinned():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    writer = saver(tmp_path, pinned=pinned, keep=1)
    save(writer, 1, 2, 3)
    assert complete_steps(tmp_path) == [1, 2, 3]
    assert caplog.text.count("older checkpoints stay for now") == 1
    save(writer, 4)
    assert complete_steps(tmp_path) == [4]


def test_a_record_that_fails_costs_no_checkpoint(tmp_path, caplog):
    def committed(done):
        raise RuntimeError("server on fire")

    last = save(saver(tmp_path, committed=committed, keep=1), 1, 2)
    assert_intact(last)
    assert complete_steps(tmp_path) == [2]
    assert "could not be recorded: server on fire" in caplog.text


def test_who_was_taken_over_commits_nothing(address):
    store = open_store(address)

    def trunk():  # in the middle of writing
        store.write(CLAIM, Holder.here().model_dump_json().encode())
        return {"conv1.weight": torch.ones(3)}

    with claimed(store, CLAIM, CLAIM) as claim:
        writer = saver(address, check=claim.check)
        save(writer, 1)
        writer.save(dataclasses.replace(snapshot(2), encoder=trunk))
        with pytest.raises(TakenOverError, match="was taken over by process"):
            writer.finish()
        with pytest.raises(TakenOverError):
            writer.save(snapshot(3))
    assert complete_steps(address) == [1]
    assert store.exists(CLAIM), "it is the other one's"


def test_who_was_taken_over_deletes_nothing(address):
    store = open_store(address)

    def pinned():
        store.write(CLAIM, Holder.here().model_dump_json().encode())
        return set()

    with claimed(store, CLAIM, CLAIM) as claim:
        write(address, 1)
        writer = saver(address, pinned=pinned, check=claim.check, keep=1)
        with pytest.raises(TakenOverError):
            save(writer, 2)
    assert complete_steps(address) == [1, 2]


def test_failures_in_a_row_end_the_run(tmp_path, caplog):
    place = tmp_path / "a" / "b"
    (tmp_path / "a").write_text("a file where a folder should be")
    writer = saver(place, max_failures=2)
    writer.save(snapshot(1))
    writer.save(snapshot(2))
    with pytest.raises(HvcError, match=r"2 checkpoints in a row.*cannot make .*/a/b/step-00000002"):
        writer.save(snapshot(3))
    with pytest.raises(HvcError, match=r"earlier ones are untouched\. Make writing possible"):
        writer.check()
    assert "checkpoint 1 not written (failure 1 in a row, 2 end the run)" in caplog.text


def test_a_success_between_failures_starts_the_count_anew(tmp_path):
    blocked = tmp_path / "a"
    writer = saver(blocked / "b", max_failures=2)
    for step in range(1, 9):
        if step % 2:
            (blocked).rename(tmp_path / "aside") if blocked.is_dir() else None
            blocked.write_text("in the way")
        else:
            blocked.unlink()
            if (tmp_path / "aside").exists():
                (tmp_path / "aside").rename(blocked)
        writer.save(snapshot(step))
        writer._join()
        writer.check()
        assert writer.failures == step % 2
    assert complete_steps(blocked / "b") == [4, 6, 8]


def test_the_last_one_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_saver, "LAST_PAUSES", (0.5, 0.5))
    blocked = tmp_path / "a"
    blocked.write_text("in the way")
    writer = saver(blocked / "b", max_failures=1)
    writer.save(snapshot(1))
    threading.Timer(0.6, blocked.unlink).start()
    assert_intact(writer.finish())


def test_an_end_without_the_last_one_is_an_error(tmp_path):
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(HvcError, match="1 checkpoint in a row"):
        save(saver(tmp_path / "a" / "b"), 1)
    assert saver(tmp_path / "c").finish() is None


def test_a_defect_is_raised_where_training_is(tmp_path):
    writer = saver(tmp_path)
    writer.save(snapshot(1, recipe=object()))
    with pytest.raises(TypeError, match="not JSON serializable"):
        writer.finish()
    with pytest.raises(TypeError):
        writer.check()


def test_damaged_ones_do_not_count_as_kept(tmp_path):
    for step in (10, 20, 30, 40):
        write(tmp_path, step)
    for step in (20, 30, 40):
        (tmp_path / f"step-{step:08d}" / "model.safetensors").write_bytes(b"short")
    save(saver(tmp_path, keep=2), 25)
    assert complete_steps(tmp_path) == [10, 20, 25, 30, 40]
    save(saver(tmp_path, keep=2), 26)
    assert complete_steps(tmp_path) == [25, 26, 30, 40]


def test_checkpoints_of_version_1_count_and_go_like_others(tmp_path):
    for step in (10, 20, 30):
        write_version_1(tmp_path, step)
    save(saver(tmp_path, keep=2), 40)
    assert complete_steps(tmp_path) == [30, 40]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_and_space_again(tmp_path, caplog):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        writer = saver(disk / "c", keep=1, max_failures=3)
        writer.save(snapshot(1, size=20_000))
        writer._join()
        (disk / "filler").write_bytes(bytes((1 << 20) - 420_000))
        writer.save(snapshot(2, size=20_000))
        writer._join()
        assert writer.failures == 1
        assert "step-00000002" in caplog.text
        assert "No space left on device; free some space" in caplog.text
        assert [path.name for path in (disk / "c").iterdir()] == ["step-00000001"]
        assert_intact(newest(disk / "c"), size=20_000)
        (disk / "filler").unlink()
        writer.save(snapshot(3, size=20_000))
        assert_intact(writer.finish(), size=20_000)
        assert complete_steps(disk / "c") == [3]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_limit_on_file_size_is_a_failure_like_any_other(tmp_path):
    program = f"""
import resource, signal, sys
from checkpoint_data import snapshot
from hvc.pretrain.checkpoints.saver import Saver
from hvc.pretrain.recipe import CheckpointConfig
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = Saver({str(tmp_path)!r}, CheckpointConfig(), pinned=set, committed=print)
writer.save(snapshot(1))
writer.finish()
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
writer.save(snapshot(2, size=20_000))
writer._join()
assert writer.failures == 1
writer.save(snapshot(3))
writer.finish()
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stderr
    assert complete_steps(tmp_path) == [1, 3]


@pytest.mark.services
@pytest.mark.parametrize("wrong", ["bucket", "key"])
def test_a_bucket_that_refuses(s3_env, monkeypatch, wrong, caplog):
    address = s3_env.bucket("refuses") if wrong == "key" else "s3://not-there-at-all"
    if wrong == "key":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    writer = saver(address + "/c", max_failures=2)
    words = {"bucket": "no such bucket", "key": "access denied"}[wrong]
    writer.save(snapshot(1))
    writer.save(snapshot(2))
    with pytest.raises(HvcError, match=f"2 checkpoints in a row could not be written: .*{words}"):
        writer.finish()
    with pytest.raises(HvcError, match=words):
        writer.check()
    assert "not-the-secret" not in caplog.text


@pytest.mark.services
def test_a_bad_network_spoils_nothing(s3_env, faulty_s3, monkeypatch):
    monkeypatch.setenv("HVC_S3_TIMEOUT", "5")
    address = s3_env.bucket("spoilt") + "/c"
    list(open_store(address).names())
    proxy = faulty_s3(0.2, alter=0.1)
    last = save(saver(address, keep=2), 1, 2, 3)
    assert_intact(last)
    assert complete_steps(address) == [2, 3]
    assert proxy.counts["requests"] > 30


@pytest.mark.services
def test_an_outage_costs_one_checkpoint_and_its_remains_go(s3_env, faulty_s3, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("HVC_S3_TIMEOUT", "5")
    monkeypatch.setenv("HVC_S3_PATIENCE", "1")
    address = s3_env.bucket("outage") + "/c"
    proxy = faulty_s3(0.0)
    writer = saver(address)
    writer.save(snapshot(1))
    writer._join()

    def trunk():  # the other files are there by now
        proxy.outage(4)
        return {"conv1.weight": torch.ones(3)}

    writer.save(dataclasses.replace(snapshot(2), encoder=trunk))
    writer._join()
    assert writer.failures == 1
    assert "encoder.safetensors" in caplog.text
    plain = s3_env.client()
    left = plain.list_objects_v2(Bucket="outage", Prefix="c/step-00000002/").get("Contents", [])
    assert left
    time.sleep(4)
    save(writer, 3)
    assert complete_steps(address) == [1, 3]
    assert not plain.list_objects_v2(Bucket="outage", Prefix="c/step-00000002/").get("Contents", [])
