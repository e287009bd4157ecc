"""Headers written as bytes are those of Python's tarfile, and every reader of tars takes them."""

import io
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.data_prep import tar

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: len(name.encode()) <= tar.NAME_BYTES and not name.endswith("/")
)


def described(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uname, info.gname, info.mtime = size, 0o444, "hvc", "hvc", 0
    return info


@given(names, st.integers(0, tar.SIZE_LIMIT - 1))
def test_a_header_is_that_of_tarfile(name, size):
    expected = described(name, size).tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
    assert tar.header(name, size) == expected


@given(
    st.lists(st.tuples(st.from_regex(r"[0-9]{9}\.[a-z.]{1,9}", fullmatch=True), st.binary(max_size=2000)))
)
def test_a_whole_archive_is_that_of_tarfile(members):
    ours = bytearray()
    for name, data in members:
        ours += tar.header(name, len(data)) + data + tar.padding(len(data))
    ours += tar.end(len(ours))
    theirs = io.BytesIO()
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            archive.addfile(described(name, len(data)), io.BytesIO(data))
    assert bytes(ours) == theirs.getvalue()


def test_gnu_tar_reads_it(tmp_path):
    data = b"x" * 700
    body = tar.header("a.jpg", 700) + data + tar.padding(700)
    (tmp_path / "a.tar").write_bytes(body + tar.end(len(body)))
    command = ["tar", "--list", "--verbose", "--utc", "--file", tmp_path / "a.tar"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.split() == ["-r--r--r--", "hvc/hvc", "700", "1970-01-01", "00:00", "a.jpg"]
    unpacked = subprocess.run(
        ["tar", "--extract", "--to-stdout", "--file", tmp_path / "a.tar"], capture_output=True, check=True
    )
    assert unpacked.stdout == data


@pytest.mark.parametrize(
    ("name", "size"), [("", 0), ("n" * 101, 0), ("é" * 51, 0), ("a\0b", 0), ("a", 8 << 30), ("a", -1)]
)
def test_what_does_not_fit_is_refused(name, size):
    with pytest.raises(ValueError, match="does not fit"):
        tar.header(name, size)
