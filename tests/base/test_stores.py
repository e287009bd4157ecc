"""One contract, two stores: a folder and a real S3 server."""

import errno
import hashlib
import io
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hvc.base.storage import (
    AlreadyExistsError,
    MissingError,
    StorageError,
    Stored,
    open_store,
    sha256_file,
)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.services)])
def store(request, tmp_path):
    if request.param == "folder":
        return open_store(tmp_path / "store")
    return open_store(request.getfixturevalue("s3_env").bucket("contract") + "/a/b")


def make_file(path, size):
    path.write_bytes(os.urandom(size))
    return path


def test_entries_are_sorted_with_sizes(store):
    assert list(store.entries()) == list(store.names()) == []
    for size, name in enumerate(["b/2", "b/10", "b.x", "b-", "a", "b/c/d", "ä", "Z"]):
        store.write(name, bytes(size))
    expected = [("Z", 7), ("a", 4), ("b-", 3), ("b.x", 2), ("b/10", 1), ("b/2", 0), ("b/c/d", 5), ("ä", 6)]
    assert list(store.entries()) == expected
    assert list(store.names()) == [name for name, _ in expected]
    for prefix in ("b", "b/", "b/c", "b/1", "nothing", "b/c/d", "b/c/d/"):
        assert list(store.entries(prefix)) == [entry for entry in expected if entry[0].startswith(prefix)]


def test_a_range_is_exact_or_an_error(store):
    data = os.urandom(10_000)
    store.write("x", data)
    for offset, length in ((0, 1), (0, 10_000), (9_999, 1), (17, 5_000), (3, 0)):
        assert store.read_range("x", offset, length) == data[offset : offset + length]
    for offset, length in ((0, 10_001), (9_999, 2), (10_000, 1), (20_000, 5)):
        with pytest.raises(StorageError, match=rf"x.* ends before byte {offset + length}"):
            store.read_range("x", offset, length)
    with pytest.raises(MissingError, match="/y"):
        store.read_range("y", 0, 1)


def test_an_upload_moves_the_file(store, tmp_path):
    path = make_file(tmp_path / "file", 100_000)
    data, digest = path.read_bytes(), sha256_file(path)
    store.upload("sub/object", path, digest)
    assert not path.exists()
    assert store.read("sub/object") == data
    assert store.stored("sub/object").size == store.size("sub/object") == 100_000
    assert store.stored("sub/object").sha256 in (digest, None)
    with pytest.raises(MissingError):
        store.stored("sub/other")


def test_create_is_once(store):
    store.create("claim", b"one")
    for data in (b"two", b"one"):
        with pytest.raises(AlreadyExistsError, match="claim is already there"):
            store.create("claim", data)
    assert store.read("claim") == b"one"


def test_sixteen_create_one_wins(store):
    def race(number):
        try:
            pickle.loads(pickle.dumps(store)).create("claim", b"same for all")
        except AlreadyExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(race, range(16))) == 1


def test_fetch_and_delete(store):
    data = os.urandom(1 << 20)
    store.write("x", data)
    store.write("empty", b"")
    for name, content in (("x", data), ("empty", b"")):
        target = io.BytesIO()
        store.fetch(name, target)
        assert target.getvalue() == content
        store.delete(name)
        store.delete(name)
        assert not store.exists(name)
        with pytest.raises(MissingError):
            store.fetch(name, target)


def test_nothing_to_abort(store):
    store.write("x", b"1")
    assert (store.abort_uploads(), store.retries) == (0, 0)


@pytest.mark.services
def test_a_large_object_in_parts_and_back(s3_env, tmp_path, monkeypatch):
    from hvc.base import s3_upload

    address = s3_env.bucket("large")
    store = open_store(address)
    monkeypatch.setattr(s3_upload, "ONE_REQUEST_BYTES", 20 << 20)
    path = make_file(tmp_path / "file", (40 << 20) + 12_345)
    digest = sha256_file(path)
    store.upload("object", path, digest)
    assert store.stored("object") == Stored((40 << 20) + 12_345, digest)
    target = io.BytesIO()
    store.fetch("object", target)
    assert hashlib.sha256(target.getvalue()).hexdigest() == digest
    assert store.read_range("object", 16_777_000, 1000) == target.getvalue()[16_777_000:16_778_000]
    assert s3_env.client().head_object(Bucket=address[5:], Key="object")["ETag"].endswith('-6"')


@pytest.mark.services
def test_an_object_replaced_in_the_middle_of_a_fetch_is_no_mixture(s3_env, monkeypatch):
    monkeypatch.setattr("hvc.base.s3_store._FETCH_BYTES", 1 << 16)
    store = open_store(s3_env.bucket("replaced"))
    store.write("x", bytes(1 << 20))

    class Target(io.BytesIO):
        def write(self, data):
            store.write("x", b"1" * (1 << 20))
            return super().write(data)

    target = Target()
    with pytest.raises(StorageError, match="/x: it was replaced while it was read"):
        store.fetch("x", target)
    assert not target.getvalue().strip(b"\0")


@pytest.mark.services
def test_listing_goes_over_many_pages(s3_env):
    store = open_store(s3_env.bucket("pages") + "/p")
    names = [f"{number:05}" for number in range(1_050)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: store.write(name, b"x"), names))
    assert list(store.entries()) == [(name, 1) for name in names]


def test_links_to_files_count_and_links_to_folders_do_not(tmp_path):
    (tmp_path / "store" / "real").mkdir(parents=True)
    (tmp_path / "store" / "real" / "x").write_bytes(b"123")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "store" / "real" / "x")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    assert list(open_store(tmp_path / "store").entries()) == [("link", 3), ("real/x", 3)]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_there_are_no_hard_links_only_one_creates(tmp_path, monkeypatch, number):
    """No such file system can be mounted everywhere, so its answer is given in its place."""

    def link(_source: Path, _target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    store = open_store(tmp_path)

    def create(number: int) -> bool:
        try:
            store.create("claim", str(number).encode())
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, ours in enumerate(pool.map(create, range(40))) if ours]
    assert len(won) == 1
    assert store.read("claim") == str(won[0]).encode()
    assert [path.name for path in tmp_path.iterdir()] == ["claim"]
    assert (tmp_path / "claim").stat().st_mode & 0o777 == 0o644
