"""Tars: any tar that Python or GNU tar writes is listed and read alike; cut and hostile ones are named."""

import gzip
import io
import os
import pickle
import subprocess
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.base.storage import StorageError
from hvc.data_prep.sources import open_tree
from hvc.data_prep.tar_tree import TarTree

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def tar_bytes(files, tar_format=tarfile.GNU_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def pack(path, files, tar_format=tarfile.GNU_FORMAT):
    path.write_bytes(tar_bytes(files, tar_format))
    return str(path)


def contents(tree):
    return {entry.path: tree.read(entry) for entry in tree.entries()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("tars")


NAMES = st.text("abÄ語 ._-", min_size=1, max_size=300).filter(
    lambda name: name.strip(". ") and not name.endswith(".tar")
)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_it_reads_what_tarfile_writes(scratch, files, tar_format):
    files = {f"folder/{name}": data for name, data in files.items()}
    tree = open_tree(pack(scratch / "x.tar", files, tar_format))
    assert [entry.path for entry in tree.entries()] == sorted(files)
    assert contents(pickle.loads(pickle.dumps(tree))) == files


@pytest.mark.parametrize("tar_format", FORMATS)
def test_long_names_in_every_format(tmp_path, tar_format):
    name = "/".join(["d" * 70] * 2) + "/" + "n" * 90 + ".jpg"
    path = pack(tmp_path / "x.tar", {name: b"data", "b": b""}, tar_format)
    assert contents(TarTree(path)) == {name: b"data", "b": b""}


@pytest.mark.parametrize("tar_format", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
def test_what_gnu_tar_writes(tmp_path, tar_format):
    root = tmp_path / "root"
    for name in ["a.jpg", "sub/b c.jpg", "sub/deep/ü.jpg", os.fsdecode(b"caf\xe9.jpg")]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.urandom(1234))
    command = ["tar", "-C", str(root), f"--format={tar_format}", "-cf", str(tmp_path / "x.tar"), "."]
    subprocess.run(command, check=True)
    found = contents(TarTree(str(tmp_path / "x.tar")))
    assert found == {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.jpg")}


def test_sizes_beyond_octal_are_understood(tmp_path):
    size = 9 << 30  # 8 GiB is what 11 octal digits hold
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        info = tarfile.TarInfo("huge.bin")
        info.size = size
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.seek(512 + size)  # a hole
        file.write(tar_bytes({"z.jpg": b"after"}))
    tree = TarTree(str(path))
    huge, last = tree.entries()
    assert huge.size == size
    assert tree.read(last) == b"after"
    with pytest.raises(OSError, match="more than the limit"):
        tree.read(huge)


def test_a_tar_of_tars_is_one_tree(tmp_path):
    inner = {
        wnid: {f"{wnid}_{i}.JPEG": os.urandom(700 + i) for i in (3, 1, 2)}
        for wnid in ("n02", "n01", "n01-x")
    }
    outer = {f"{wnid}.tar": tar_bytes(files) for wnid, files in inner.items()}
    outer["n01.txt"] = b"between n01-x/ and n01/"
    tree = TarTree(pack(tmp_path / "x.tar", outer))
    expected = {f"{wnid}/{name}": data for wnid, files in inner.items() for name, data in files.items()}
    expected["n01.txt"] = outer["n01.txt"]
    assert [entry.path for entry in tree.entries()] == sorted(expected)
    assert contents(tree) == expected


def test_tars_in_tars_come_to_an_end(tmp_path):
    data = tar_bytes({"x.jpg": b"x"})
    for _ in range(9):
        data = tar_bytes({"t.tar": data})
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(HvcError, match="more than 8 tars inside each other"):
        list(TarTree(str(tmp_path / "x.tar")).entries())


def test_links_are_listed_and_say_what_they_are(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for kind, name in ((tarfile.SYMTYPE, "soft.jpg"), (tarfile.LNKTYPE, "hard.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        for kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("other.jpg")
            info.type = kind
            archive.addfile(info)
    tree = TarTree(str(tmp_path / "x.tar"))
    assert [entry.path for entry in tree.entries()] == ["hard.jpg", "soft.jpg"]
    for entry in tree.entries():
        with pytest.raises(OSError, match="a link inside a tar; unpack"):
            tree.read(entry)


@pytest.mark.parametrize("name", ["../up.jpg", "/etc/x.jpg", "a/../../x.jpg", "a\\b.jpg"])
@pytest.mark.parametrize("tar_format", FORMATS)
def test_members_that_lead_out_are_refused(tmp_path, name, tar_format):
    path = pack(tmp_path / "x.tar", {"n.tar": tar_bytes({name: b"x"}, tar_format)})
    with pytest.raises(HvcError, match=r"x\.tar: n\.tar: the member name .* is not a plain relative path"):
        list(TarTree(path).entries())


def test_a_tar_cut_anywhere_is_named(tmp_path):
    whole = tar_bytes({"a.jpg": b"x" * 700, "b.jpg": b"y" * 700})
    end = 2 * (512 + 1024)
    path = tmp_path / "x.tar"
    for cut in [0, 1, 511, 512, 513, 1211, 1212, 1536, 1537, 2048, 2500, end - 300, end, end + 511]:
        path.write_bytes(whole[:cut])
        with pytest.raises(HvcError, match=r"x\.tar was cut short (in|after) .*byte"):
            list(TarTree(str(path)).entries())
    path.write_bytes(whole[: end + 512])
    assert len(list(TarTree(str(path)).entries())) == 2


def test_a_cut_inner_tar_is_named(tmp_path):
    path = pack(tmp_path / "x.tar", {"n01.tar": tar_bytes({"a.jpg": b"x" * 700})[:1100]})
    with pytest.raises(HvcError, match=r"x\.tar: n01\.tar was cut short in a\.jpg"):
        list(TarTree(path).entries())


@pytest.mark.parametrize("data", [gzip.compress(b"x" * 2000, 0), b"GIF89a" * 200])
def test_what_is_no_tar_says_so(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    hint = "compressed: decompress" if data[:2] == b"\x1f\x8b" else "is no tar, or damaged, at byte 0"
    with pytest.raises(HvcError, match=hint):
        list(TarTree(str(tmp_path / "x.tar")).entries())


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 30), st.binary(min_size=1, max_size=8), st.sampled_from(FORMATS))
def test_a_damaged_header_is_never_a_crash(scratch, at, junk, tar_format):
    files = {"a" * 120 + "/" + "b" * 90 + ".jpg": b"x" * 600, "c.jpg": b"z"}
    data = bytearray(tar_bytes(files, tar_format))
    at %= len(data) - len(junk)
    data[at : at + len(junk)] = junk
    (scratch / "damaged.tar").write_bytes(data)
    try:
        found = contents(TarTree(str(scratch / "damaged.tar")))
    except (HvcError, OSError):
        return
    assert len(found) <= 2


def test_a_tar_that_is_gone_rejects_no_image(tmp_path):
    path = tmp_path / "x.tar"
    tree = TarTree(pack(path, {"a.jpg": b"x"}))
    (entry,) = tree.entries()
    fresh = pickle.loads(pickle.dumps(tree))
    path.unlink()
    with pytest.raises(StorageError, match=r"cannot open .*x\.tar"):
        fresh.read(entry)


@pytest.mark.services
def test_a_tar_of_tars_on_s3(s3_env, tmp_path):
    address = s3_env.bucket("tars")
    inner = {f"n{c}": {f"n{c}_{i}.JPEG": os.urandom(50_000) for i in range(20)} for c in range(3)}
    pack(tmp_path / "x.tar", {f"{name}.tar": tar_bytes(files) for name, files in inner.items()})
    s3_env.client().upload_file(str(tmp_path / "x.tar"), "tars", "x.tar")
    tree = pickle.loads(pickle.dumps(open_tree(f"{address}/x.tar")))
    expected = {f"{name}/{path}": data for name, files in inner.items() for path, data in files.items()}
    assert contents(tree) == expected
