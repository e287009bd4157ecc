"""The block cache: whole files only, the limit, other processes, and a disk that says no."""

import fcntl
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from hvc.pretrain.data.cache import BlockCache

NAME = "ab" + "0" * 62


def content(number: int, size: int = 1000) -> bytes:
    return np.random.default_rng(number).bytes(size)


def total(folder: Path) -> int:
    """Bytes of all files at one moment."""
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_size for path in folder.glob("??/*") if not path.name.startswith("."))


def test_what_was_put_is_found_by_another_process(tmp_path):
    BlockCache(tmp_path / "c", 10**6).put(NAME, 512, content(1))
    again = BlockCache(tmp_path / "c", 10**6)
    assert again.get(NAME, 512, 1000) == content(1)
    assert again.get(NAME, 0, 1000) is None
    assert again.get("ff" * 32, 512, 1000) is None


def test_the_limit_holds_and_what_was_used_last_stays(tmp_path):
    cache = BlockCache(tmp_path, 10_500)
    for number in range(40):
        cache.put(NAME, number, content(number))
        assert total(tmp_path) <= 10_500
        assert number == 0 or cache.get(NAME, 0, 1000) == content(0)
        time.sleep(0.002)
    kept = [number for number in range(40) if cache.get(NAME, number, 1000)]
    assert kept[0] == 0
    assert kept[1:] == list(range(40 - len(kept) + 1, 40))
    cache.put(NAME, 99, content(99, 20_000))
    assert cache.get(NAME, 99, 20_000) is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_is_noticed_and_replaced(tmp_path, damage):
    cache = BlockCache(tmp_path, 10**6)
    cache.put(NAME, 0, content(1))
    (path,) = tmp_path.glob("??/*")
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes({"cut": data[:700], "flip": data, "empty": b""}[damage])
    assert cache.get(NAME, 0, 1000) is None
    cache.put(NAME, 0, content(1))
    assert cache.get(NAME, 0, 1000) == content(1)


def _use(folder: Path, limit: int, seed: int, rounds: int) -> None:
    cache, rng = BlockCache(folder, limit), np.random.default_rng(seed)
    for _ in range(rounds):
        number = int(rng.integers(60))
        found = cache.get(NAME, number, 1000)
        assert found in (None, content(number))
        if found is None:
            cache.put(NAME, number, content(number))
    assert cache.trouble is None


def test_many_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_use, args=(tmp_path, 20_000, seed, 150)) for seed in range(4)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        assert total(tmp_path) <= 20_000
    assert [process.exitcode for process in processes] == [0] * 4
    assert total(tmp_path) == int((tmp_path / ".size").read_text())


def test_sigkill_leaves_nothing_wrong_behind(tmp_path):
    context, rng = multiprocessing.get_context("fork"), np.random.default_rng(0)
    for seed in range(12):
        process = context.Process(target=_use, args=(tmp_path, 20_000, seed, 10**6))
        process.start()
        time.sleep(float(rng.uniform(0.005, 0.05)))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    _use(tmp_path, 20_000, 99, 100)
    assert list(tmp_path.glob("??/.*")) == []
    assert total(tmp_path) == int((tmp_path / ".size").read_text()) <= 20_000


def test_leftovers_go_only_when_nobody_holds_them(tmp_path):
    (tmp_path / "ab").mkdir()
    held, left = tmp_path / "ab" / ".held.part", tmp_path / "ab" / ".left.part"
    left.write_bytes(b"x")
    with held.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        BlockCache(tmp_path, 1000)
        assert held.exists()
    assert not left.exists()


def test_trouble_with_the_disk_costs_only_the_cache(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = BlockCache(tmp_path / "file" / "cache", 10**6)
    cache.put(NAME, 0, content(0))
    assert cache.get(NAME, 0, 1000) is None
    assert "training goes on without" in cache.trouble


def test_a_full_disk_costs_only_the_cache(tmp_path, monkeypatch):
    cache = BlockCache(tmp_path, 10**6)
    cache.put(NAME, 0, content(0))
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))  # writing more fails, as on a full disk
    try:
        cache.put(NAME, 1, content(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "is not written any more" in cache.trouble
    assert cache.get(NAME, 0, 1000) == content(0)
    assert list(tmp_path.glob("??/.*")) == []
