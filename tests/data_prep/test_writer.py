"""A shard is what every reader of tars takes it for, the same each time, and whole or not there."""

import errno
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image

from hvc.base.errors import HvcError
from hvc.base.storage import MissingError, StorageError
from hvc.data_prep.catalog import Extra, Record
from hvc.data_prep.images import EXTENSIONS, MAX_BYTES, Gate
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.tar_file import TarFile
from hvc.data_prep.tree import Entry
from hvc.data_prep.writer import Rejected, Task, write_shard


@dataclass
class Shelf:
    """A tree of files in memory; an exception in place of a file is what reading it raises."""

    files: dict[str, bytes | Exception] = field(default_factory=dict)
    address: str = "shelf"

    def read(self, entry):
        content = self.files[entry.path]
        if isinstance(content, Exception):
            raise content
        return content

    def records(self, **more):
        sizes = {path: 0 if isinstance(data, Exception) else len(data) for path, data in self.files.items()}
        return [Record(path, size, **more) for path, size in sizes.items()]

    def task(self, **options):
        return Task("shard-000000", tuple(enumerate(self.records())), (self,), **options)


@pytest.fixture
def shelf(encode):
    formats = ["JPEG", "PNG", "WEBP", "BMP", "TIFF"]
    sizes = {seed: (90 + seed % 7, 60 + seed % 5) for seed in range(40)}
    return Shelf(
        {
            f"part/{seed:02d} ü.JPEG": encode(formats[seed % 5], seed, width=width, height=height)
            for seed, (width, height) in sizes.items()
        }
    )


def members_of(path):
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_stock_tools_read_it(shelf, tmp_path):
    record = write_shard(shelf.task(), tmp_path)
    path = tmp_path / record.shard.path
    listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
    names = listed.stdout.split()
    assert listed.stderr == ""
    assert names == sorted(names)
    assert len(names) == 2 * len(shelf.files)
    members = members_of(path)
    assert list(members) == names
    keys = [name[:9] for name in names[::2]]
    for key, (source, data) in zip(keys, shelf.files.items(), strict=True):
        about = json.loads(members[f"{key}.json"])
        assert [members[name] for name in names if name[:9] == key and name[10:] != "json"] == [data]
        assert about["path"] == source
        assert set(about) == {"path", "width", "height"}
        assert (about["width"], about["height"]) == Image.open(io.BytesIO(data)).size


def test_stock_webdataset_reads_it(shelf, tmp_path):
    import webdataset

    record = write_shard(shelf.task(), tmp_path)
    samples = list(webdataset.WebDataset(str(tmp_path / record.shard.path), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"{i:09d}" for i in range(len(shelf.files))]
    for sample, data in zip(samples, shelf.files.values(), strict=True):
        assert data in sample.values()


def test_index_hashes_and_sizes_are_those_of_the_files(shelf, tmp_path):
    record = write_shard(shelf.task(), tmp_path)
    tar, idx = ((tmp_path / ref.path).read_bytes() for ref in (record.shard, record.shard.index))
    assert record.shard.bytes == len(tar)
    assert record.shard.sha256 == hashlib.sha256(tar).hexdigest()
    assert record.shard.index.sha256 == hashlib.sha256(idx).hexdigest()
    index = ShardIndex.from_bytes(idx)
    assert len(index) == record.shard.samples == len(shelf.files)
    indexed = {
        f"{index.key(i)}.{ext}": (place.offset, place.length, place.crc)
        for i in range(len(index))
        for ext, place in index.members(i).items()
    }
    with tarfile.open(tmp_path / record.shard.path) as archive:
        real = {
            member.name: (member.offset_data, member.size, zlib.crc32(archive.extractfile(member).read()))
            for member in archive
        }
    assert indexed == real
    assert {path.name for path in tmp_path.iterdir()} == {"shard-000000.idx", "shard-000000.tar"}


@pytest.mark.parametrize("gate", [Gate("none"), Gate(), Gate(max_side=64, quality=80)])
def test_two_runs_give_the_same_bytes(shelf, tmp_path, gate):
    for folder, thread in (("a", False), ("b", True)):
        (tmp_path / folder).mkdir()
        write_shard(shelf.task(gate=gate), tmp_path / folder, thread=thread)
    for name in ("shard-000000.tar", "shard-000000.idx"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("thread", [False, True])
def test_batches_do_not_show(tmp_path, encode, thread):
    """Thousands of members, small and larger than what is handed over at once."""
    image = encode("BMP", width=40, height=30)
    shelf = Shelf({f"{i:05d}": image + bytes(i % 7 * 400_000 if i % 100 == 0 else i) for i in range(3000)})
    record = write_shard(shelf.task(gate=Gate("none")), tmp_path, thread=thread)
    members = members_of(tmp_path / record.shard.path)
    assert [members[f"{i:09d}.bmp"] == data for i, data in enumerate(shelf.files.values())] == [True] * 3000


def test_everything_known_of_a_sample_is_in_it(tmp_path, encode):
    frame = Record("clip/00007.jpg", label="cat", video="clip", frame=7, time=0.28, input=1)
    extras = (
        Extra("txt", Entry("a.txt", 9)),
        Extra("mask.png", Entry("mask.png", 9)),
        Extra("caption.txt", Entry("all.json", 9), b"said elsewhere"),
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    inputs = (
        Shelf({"a.png": encode("PNG")}, "one"),
        Shelf(
            {
                "clip/00007.jpg": encode("JPEG", exif=exif),
                "a.txt": b"a caption",
                "mask.png": encode("PNG", mode="P"),
            },
            "two",
        ),
    )
    items = ((3, Record("a.png", label="dog")), (1, frame._replace(extras=extras)))
    record = write_shard(Task("s", items, inputs, Gate(), ("bird", "cat", "dog")), tmp_path)
    members = members_of(tmp_path / "s.tar")
    assert list(members) == [
        "000000003.cls",
        "000000003.json",
        "000000003.png",
        "000000001.caption.txt",
        "000000001.cls",
        "000000001.jpg",
        "000000001.json",
        "000000001.mask.png",
        "000000001.txt",
    ]
    assert (members["000000003.cls"], members["000000001.cls"]) == (b"2", b"1")
    assert members["000000001.txt"] == b"a caption"
    assert members["000000001.caption.txt"] == b"said elsewhere"
    assert members["000000001.json"] == (
        b'{"path": "clip/00007.jpg", "width": 96, "height": 64, "input": 1, "video": "clip", '
        b'"frame": 7, "time": 0.28, "orientation": 6}'
    )
    assert members["000000003.json"] == b'{"path": "a.png", "width": 96, "height": 64, "input": 0}'
    assert record.runs == ((None, 1, 0), ("clip", 1, 1))
    index = ShardIndex.from_bytes((tmp_path / "s.idx").read_bytes())
    offsets, lengths, _ = index.image_places(EXTENSIONS)
    tar = (tmp_path / "s.tar").read_bytes()
    assert [tar[o : o + n] for o, n in zip(offsets, lengths, strict=True)] == [
        members["000000003.png"],
        members["000000001.jpg"],
    ]


def test_bad_files_are_rejected_with_their_reason_and_leave_a_gap(tmp_path, encode):
    good = encode("JPEG")
    shelf = Shelf(
        {
            "0 good": good,
            "1 empty": b"",
            "2 text": b"no image",
            "3 cut": good[:-300],
            "4 gone": FileNotFoundError(errno.ENOENT, "No such file or directory"),
            "5 damaged": OSError(errno.EIO, "its CRC-32 is wrong"),
            "6 lost": MissingError("cannot read s3://b/6: there is no such object"),
            "7 odd": HvcError("frame 7 cannot be decoded"),
            "8 \udcff": b"",
            "9 good": good,
        }
    )
    record = write_shard(shelf.task(), tmp_path)
    assert record.shard.samples == 2
    assert [key for key in members_of(tmp_path / record.shard.path) if key.endswith("jpg")] == [
        "000000000.jpg",
        "000000009.jpg",
    ]
    reasons = {reject.path: reject.reason for reject in record.rejects}
    assert reasons.pop("3 cut").startswith("cannot be decoded: image file is truncated")
    assert reasons == {
        "1 empty": "empty file",
        "2 text": "not an image, or of an unknown format",
        "4 gone": "cannot be read: No such file or directory",
        "5 damaged": "cannot be read: its CRC-32 is wrong",
        "6 lost": "cannot be read: cannot read s3://b/6: there is no such object",
        "7 odd": "cannot be read: frame 7 cannot be decoded",
        "8 \\udcff": "empty file",
    }
    assert record.runs == ((None, 2, 0),)
    assert type(record).model_validate_json(record.model_dump_json()) == record


def test_a_missing_extra_rejects_the_sample_and_is_named(tmp_path, encode):
    shelf = Shelf({"a.jpg": encode("JPEG"), "a.txt": FileNotFoundError(errno.ENOENT, "No such file")})
    items = ((0, Record("a.jpg", extras=(Extra("txt", Entry("a.txt", 5)),))),)
    record = write_shard(Task("s", items, (shelf,)), tmp_path)
    reason = "its txt (a.txt) cannot be read: No such file"
    assert record.rejects == (Rejected(path="a.jpg", reason=reason),)
    assert record.shard is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        StorageError("cannot reach the server"),
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ETIMEDOUT, "Connection timed out"),
    ],
)
def test_trouble_that_is_not_the_files_ends_the_run_instead_of_losing_them(tmp_path, encode, error):
    shelf = Shelf({"a": encode("JPEG"), "b": error})
    with pytest.raises(HvcError, match=r"cannot reach|Too many|timed out"):
        write_shard(shelf.task(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_large_is_not_even_read(tmp_path, encode):
    shelf = Shelf({"a": AssertionError("was read"), "b": encode("BMP") + bytes(MAX_BYTES)})
    items = ((0, Record("a", MAX_BYTES + 1)), (1, Record("b", 0)))  # the second has grown since
    record = write_shard(Task("s", items, (shelf,)), tmp_path)
    assert ["more than 64000000" in reject.reason for reject in record.rejects] == [True, True]


def test_runs_are_counted_over_what_was_written(tmp_path, encode):
    good, bad = encode("PNG"), b""
    videos = [None, None, "a", "a", "a", "b", "b", None, "b", "b"]
    files = {f"{i}": bad if i in (3, 5, 6) else good for i in range(10)}
    one, two = Shelf(files, "one"), Shelf(files, "two")
    items = [(i, Record(f"{i}", video=videos[i], input=int(i == 9))) for i in range(10)]
    record = write_shard(Task("s", tuple(items), (one, two)), tmp_path)
    assert record.runs == ((None, 2, 0), ("a", 2, 0), (None, 1, 0), ("b", 1, 0), ("b", 1, 1))
    assert sum(run.samples for run in record.runs) == record.shard.samples


@pytest.mark.parametrize("thread", [False, True])
def test_a_full_disk_is_explained_and_nothing_is_left(tmp_path, thread):
    program = """
import resource, sys
from pathlib import Path
from hvc.base.errors import HvcError
from hvc.data_prep.catalog import Record
from hvc.data_prep.writer import Task, write_shard
class Tree:
    address = "memory"
    def read(self, entry):
        return b"BM" + bytes(12) + b"\\x28" + bytes(300_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
items = tuple((i, Record(str(i))) for i in range(int(sys.argv[2])))
from hvc.data_prep.images import Gate
try:
    task = Task("s", items, (Tree(),), Gate("none"))
    write_shard(task, Path(sys.argv[1]), thread=sys.argv[3] == "True")
except HvcError as error:
    print(error)
"""
    for images in (4, 100):  # too much in the last batch; too much long before
        command = [sys.executable, "-c", program, str(tmp_path), str(images), str(thread)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.stderr == ""
        assert f"cannot write {tmp_path}/s.tar: File too large" in done.stdout
        assert "run the same command again" in done.stdout
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_explained(shelf, tmp_path):
    with pytest.raises(HvcError, match=r"cannot write .*No such file"):
        write_shard(shelf.task(), tmp_path / "missing")


@pytest.mark.parametrize("thread", [False, True])
def test_a_tar_given_up_leaves_nothing(tmp_path, thread):
    with pytest.raises(KeyboardInterrupt), TarFile(tmp_path / "a.tar", thread=thread) as file:
        file.add("k", {"jpg": bytes(3_000_000)})
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


_PEAK = """
import sys
from pathlib import Path
from hvc.data_prep.folder_tree import FolderTree
from hvc.data_prep.images import Gate
from hvc.data_prep.catalog import Record
from hvc.data_prep.writer import Task, write_shard
import boto3
boto3.client("s3", region_name="none", aws_access_key_id="a", aws_secret_access_key="b")
tree = FolderTree(sys.argv[1])
items = tuple((i, Record(entry.path, entry.size)) for i, entry in enumerate(tree.entries()))
for gate in (Gate(), Gate(max_side=512)):
    record = write_shard(Task("s", items, (tree,), gate), Path(sys.argv[2]))
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(record.shard.samples, len(record.rejects), int(peak) // 1024)
"""


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_input(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"\xff\xd8\xff" + bytes(90_000_000))
    (folder / "b.bmp").write_bytes(b"BM" + bytes(12) + b"\x28" + bytes(63_000_000))
    for name, size, options in [
        ("c.jpg", (9000, 8000), {}),
        ("d.jpg", (5700, 5600), {"progressive": True, "subsampling": 0}),
        ("e.png", (7000, 6500), {"compress_level": 1}),
        ("f.webp", (4000, 3000), {"method": 0}),
        ("g.tif", (4000, 3800), {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 4000}}),
        ("h.bmp", (5000, 4200), {}),
    ]:
        Image.new("RGB", size, (200, 100, 50)).save(folder / name, **options)
    command = [sys.executable, "-c", _PEAK, folder, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        samples, rejects, peak = map(int, line.split())
        assert samples + rejects == 8
        assert samples == 6
        assert peak < 286, f"{peak} MiB"  # 300 MB


def test_a_mask_is_turned_and_scaled_like_its_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    photo, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (80, 40)).save(photo, "JPEG", exif=exif)
    ids = np.zeros((40, 80), np.uint8)
    ids[:, :40] = 3
    palette = Image.fromarray(ids, "P")
    palette.putpalette([7 * i % 256 for i in range(768)])
    palette.save(mask, "PNG")
    shelf = Shelf({"a.jpg": photo.getvalue(), "a.png": mask.getvalue(), "b.png": b"no mask"})
    items = tuple(
        (i, Record("a.jpg", 1, extras=(Extra("mask.png", Entry(name, 1)),)))
        for i, name in enumerate(("a.png", "b.png"))
    )
    record = write_shard(Task("s", items, (shelf,), Gate(max_side=20)), tmp_path)
    (reject,) = record.rejects
    assert reject.reason.startswith("its mask.png (b.png) cannot be decoded: ")
    with tarfile.open(tmp_path / "s.tar") as tar:
        image = Image.open(tar.extractfile("000000000.jpg"))
        small = Image.open(tar.extractfile("000000000.mask.png"))
        assert (image.size, small.size, small.mode) == ((10, 20), (10, 20), "P")
        assert small.getpalette()[3:6] == palette.getpalette()[3:6]
        values = np.asarray(small)
    assert (values[:10] == 3).all()
    assert (values[10:] == 0).all()
