"""Zips: what any packer writes is read back to the byte; what is damaged or hostile is named."""

import io
import os
import pickle
import struct
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.base.storage import StorageError
from hvc.data_prep import tree as tree_module
from hvc.data_prep.sources import open_tree
from hvc.data_prep.zip_tree import ZipTree

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]


def pack(path, files, **options):
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, data) in enumerate(files.items()):
            archive.writestr(name, data, METHODS[number % 2], **options)
    return str(path)


def contents(tree):
    return {entry.path: tree.read(entry) for entry in tree.entries()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("zips")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text("abÄ語 ._-", min_size=1, max_size=6).filter(lambda name: name.strip(".")),
        st.binary(max_size=400),
        max_size=6,
    )
)
def test_members_come_back_sorted_and_whole(scratch, files):
    files = {f"folder/{name}": data for name, data in files.items()}
    tree = open_tree(pack(scratch / "x.zip", {"folder/": b"", **files}))
    assert [entry.path for entry in tree.entries()] == sorted(files)
    assert {entry.path: entry.size for entry in tree.entries()} == {n: len(d) for n, d in files.items()}
    assert contents(pickle.loads(pickle.dumps(tree))) == files


def test_zip64_records_and_bytes_before_the_zip(tmp_path):
    path = tmp_path / "x.ZIP"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as member:
        member.write(b"12345")
    assert contents(open_tree(str(path))) == {"a.jpg": b"12345"}
    path.write_bytes(b"#!/bin/sh a self-extracting one\n" + path.read_bytes())
    assert contents(open_tree(str(path))) == {"a.jpg": b"12345"}


def test_sizes_after_the_data(tmp_path):
    class Pipe(io.RawIOBase):
        def __init__(self, file):
            self.file = file

        def writable(self):
            return True

        def write(self, data):
            return self.file.write(data)

    with (tmp_path / "x.zip").open("wb") as file, zipfile.ZipFile(Pipe(file), "w") as archive:
        archive.writestr("a.jpg", b"streamed" * 100, zipfile.ZIP_DEFLATED)
    assert contents(ZipTree(str(tmp_path / "x.zip"))) == {"a.jpg": b"streamed" * 100}


def test_a_large_extra_field_costs_a_second_read(tmp_path):
    info = zipfile.ZipInfo("a.jpg")
    info.extra = struct.pack("<HH", 0x9999, 5000) + b"e" * 5000
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, b"data")
    assert contents(ZipTree(str(tmp_path / "x.zip"))) == {"a.jpg": b"data"}


@pytest.mark.parametrize("name", ["../up.jpg", "/etc/x.jpg", "a/../../x.jpg", "a\\b.jpg"])
def test_members_that_lead_out_are_refused(tmp_path, name):
    path = pack(tmp_path / "x.zip", {name: b"x"})
    with pytest.raises(HvcError, match=r"x\.zip: the member name .* is not a plain relative path"):
        list(ZipTree(path).entries())


def test_a_bomb_is_not_unpacked_beyond_what_it_declares(tmp_path):
    path = tmp_path / "x.zip"
    pack(path, {"skip": b"", "bomb.jpg": b"0" * 50_000_000})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", 1000)  # the size that the directory declares
    path.write_bytes(data)
    tree = ZipTree(str(path))
    (entry,) = (entry for entry in tree.entries() if entry.path == "bomb.jpg")
    assert entry.size == 1000
    with pytest.raises(OSError, match="CRC-32 or size"):
        tree.read(entry)


def test_more_members_than_the_small_counter_holds(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(65_537):
            archive.writestr(f"{number:06d}", b"")
    assert sum(1 for _ in ZipTree(str(tmp_path / "x.zip")).entries()) == 65_537


def test_a_declared_giant_is_turned_down(tmp_path, monkeypatch):
    tree = ZipTree(pack(tmp_path / "x.zip", {"a.jpg": b"x" * 100}))
    monkeypatch.setattr(tree_module, "MAX_BYTES", 99)
    with pytest.raises(OSError, match="100 bytes are more than the limit"):
        contents(tree)


@pytest.mark.parametrize("method", [0, 1])
def test_a_flipped_bit_is_noticed(tmp_path, method):
    path = tmp_path / "x.zip"
    payload = os.urandom(1000)
    pack(path, {"skip": b"", "a.jpg": payload} if method else {"a.jpg": payload})
    data = bytearray(path.read_bytes())
    tree = ZipTree(str(path))
    entry = next(entry for entry in tree.entries() if entry.path == "a.jpg")
    data[entry.place.offset + 600] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"the zip is damaged|cannot be unpacked"):
        ZipTree(str(path)).read(entry)


def test_damage_anywhere_is_an_error_or_harmless(tmp_path):
    files = {"a.jpg": b"first" * 50, "b.jpg": b"second" * 50}
    path = tmp_path / "x.zip"
    whole = bytearray((tmp_path / pack(path, files)).read_bytes())
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        try:
            found = contents(ZipTree(str(path)))
        except (HvcError, OSError):
            continue
        assert sorted(found.values()) == sorted(files.values()), at


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_cut_zip_says_so(tmp_path, cut):
    path = tmp_path / "x.zip"
    pack(path, {"a.jpg": b"x" * 100, "b.jpg": b"y" * 100})
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(HvcError, match=r"x\.zip is no zip, or was cut short"):
        list(ZipTree(str(path)).entries())


def test_encrypted_and_oddly_packed_members_are_named(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.jpg", b"x" * 100)
    with pytest.raises(HvcError, match=r"a\.jpg is packed by method 14"):
        list(ZipTree(str(path)).entries())
    data = bytearray(path.read_bytes())
    data[data.rfind(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(HvcError, match=r"a\.jpg is encrypted"):
        list(ZipTree(str(path)).entries())


def test_a_zip_that_is_gone_rejects_no_image(tmp_path):
    path = tmp_path / "x.zip"
    tree = ZipTree(pack(path, {"a.jpg": b"x"}))
    (entry,) = tree.entries()
    fresh = pickle.loads(pickle.dumps(tree))
    path.unlink()
    with pytest.raises(StorageError, match=r"cannot open .*x\.zip"):
        fresh.read(entry)


@pytest.mark.services
def test_a_zip_on_s3(s3_env, tmp_path):
    address = s3_env.bucket("zips")
    files = {f"d/{i}.jpg": os.urandom(3000 + i) for i in range(40)}
    pack(tmp_path / "x.zip", files)
    s3_env.client().upload_file(str(tmp_path / "x.zip"), "zips", "in/x.zip")
    tree = open_tree(f"{address}/in/x.zip")
    assert contents(pickle.loads(pickle.dumps(tree))) == files
