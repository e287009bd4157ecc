"""Folders and S3 prefixes as trees: the same files in the same order, read whole or not at all."""

import os
import pickle
import socket

import pytest

from hvc.base.errors import HvcError, UsageError
from hvc.data_prep import tree as tree_module
from hvc.data_prep.folder_tree import FolderTree
from hvc.data_prep.sources import open_tree
from hvc.data_prep.tree import Entry, inner_path


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def listed(tree):
    return [entry.path for entry in tree.entries()]


def test_files_come_in_the_order_of_their_whole_paths(tmp_path):
    names = [
        "a/b.jpg",
        "a.jpg",
        "a-b/c",
        "a0",
        "A/z",
        "a/b/c/d",
        "a/b-c",
        "a/b0",
        "é/ü",
        "z",
        ".x",
        "a b/c",
    ]
    touch(tmp_path, *names)
    assert listed(FolderTree(str(tmp_path))) == sorted(names)
    sizes = {entry.path: entry.size for entry in FolderTree(str(tmp_path)).entries()}
    assert sizes["é/ü"] == 5


def test_links_are_followed_but_not_round_and_round(tmp_path):
    touch(tmp_path / "in", "a/x.jpg")
    touch(tmp_path / "elsewhere", "y.jpg")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in/file.jpg").symlink_to(tmp_path / "elsewhere/y.jpg")
    tree = FolderTree(str(tmp_path / "in"))
    assert listed(tree) == ["a/x.jpg", "file.jpg", "gone.jpg", "linked/y.jpg"]
    assert tree.read(Entry("file.jpg", 5)) == b"y.jpg"
    with pytest.raises(FileNotFoundError):
        tree.read(Entry("gone.jpg", 0))


def test_names_that_are_no_text_are_read_all_the_same(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    touch(tmp_path, name)
    tree = pickle.loads(pickle.dumps(FolderTree(str(tmp_path))))
    (entry,) = tree.entries()
    assert entry.path == name
    assert tree.read(entry) == b"caf\xe9.jpg"


def test_pipes_and_giants_are_turned_down_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    touch(tmp_path, "large.jpg")
    tree = FolderTree(str(tmp_path))
    with pytest.raises(OSError, match="not a regular file"):
        tree.read(Entry("pipe.jpg", 0))
    monkeypatch.setattr(tree_module, "MAX_BYTES", 8)
    with pytest.raises(OSError, match="9 bytes are more than the limit of 8"):
        tree.read(Entry("large.jpg", 9))


def test_a_socket_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.jpg")
        with pytest.raises(OSError):
            FolderTree(str(tmp_path)).read(Entry("s.jpg", 0))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a\\b", "a\0b", "..", "a/.."])
def test_member_names_that_lead_out_are_refused(name):
    with pytest.raises(HvcError, match=r"x\.zip.*not a plain relative path"):
        inner_path("x.zip", name)


@pytest.mark.parametrize(
    ("name", "path"),
    [("./a/b", "a/b"), ("a//b", "a/b"), ("a/./b", "a/b"), ("..a/b..c", "..a/b..c"), (".hidden", ".hidden")],
)
def test_member_names_are_made_plain(name, path):
    assert inner_path("x.zip", name) == path


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("missing", "input .*missing: no such folder or file"),
        ("notes.txt", "not a folder, .zip, .tar or video file"),
        ("x.tar.gz", "decompress it first"),
        ("http://server/x.zip", "only local paths and s3://bucket/prefix"),
        ("s3://bucket/clip.mp4", "videos are read from local files"),
        ("s3://bucket/x.tgz", "decompress it first"),
    ],
)
def test_what_cannot_be_opened_says_why(tmp_path, address, message):
    touch(tmp_path, "notes.txt", "x.tar.gz")
    with pytest.raises(UsageError, match=message):
        open_tree(address if "://" in address else str(tmp_path / address))


@pytest.mark.services
def test_a_prefix_on_s3_is_a_tree(s3_env):
    address = s3_env.bucket("tree")
    client = s3_env.client()
    names = ["p/a.jpg", "p/a/b c.jpg", "p/é.jpg", "p/B.jpg"]
    for key in [*names, "p/a/", "other/x.jpg", "pp/x.jpg"]:
        client.put_object(Bucket="tree", Key=key, Body=b"" if key.endswith("/") else key.encode())
    tree = pickle.loads(pickle.dumps(open_tree(f"{address}/p")))
    assert listed(tree) == sorted(name[2:] for name in names)
    for entry in tree.entries():
        assert tree.read(entry) == f"p/{entry.path}".encode()
        assert entry.size == len(f"p/{entry.path}".encode())
