"""Exact duplicates: found by content alone, hashed once, counted."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, never
from hvc.base.storage import open_store
from hvc.data_prep import dedupe
from hvc.data_prep.dedupe import Chunk, chunk_size, find_duplicates, hash_chunk
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.pool import Workers
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.sources import build_catalog
from hvc.data_prep.verify import verify


def row(value):
    """A hash; those of values that differ by 100 have the same first 8 bytes."""
    return bytes([value % 100] * 8 + [value // 100] * 24)


@given(st.lists(st.sampled_from([0, 1, 2, 3, 101, 102, 201]), max_size=40))
def test_every_later_one_names_the_first(values):
    hashes = np.frombuffer(b"".join(map(row, values)), np.uint8).reshape(-1, 32)
    expected = [
        values.index(value) if value and values.index(value) < i else -1 for i, value in enumerate(values)
    ]
    assert find_duplicates(hashes).tolist() == expected


def test_a_million_hashes_take_no_time():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (1_000_000, 32), np.uint8)
    hashes[500_000:500_100] = hashes[:100]
    found = find_duplicates(hashes)
    assert np.flatnonzero(found >= 0).tolist() == list(range(500_000, 500_100))
    assert found[500_007] == 7


@given(st.integers(0, 20_000_000))
def test_chunks_are_neither_many_nor_large(records):
    size = chunk_size(records)
    assert 32 <= size <= 8192
    assert records <= size * 256 or size == 8192


def test_the_hash_is_of_the_bytes_and_of_nothing_else(tmp_path):
    for name, data in {
        "a.jpg": b"x",
        "b.jpg": b"x",
        "c.jpg": b"y",
        "empty.jpg": b"",
        "gone.jpg": b"z",
    }.items():
        (tmp_path / name).write_bytes(data)
    catalog = build_catalog([("folder", str(tmp_path))])
    (tmp_path / "gone.jpg").unlink()
    records = tuple(catalog.record(i) for i in range(len(catalog)))
    number, data = hash_chunk(Chunk(7, records, catalog.trees))
    x, y = hashlib.sha256(b"x").digest(), hashlib.sha256(b"y").digest()
    assert (number, data) == (7, x + x + y + bytes(64))


def config(root, output, **more):
    inputs = [{"source": "folder", "address": str(root)}]
    values = {
        "inputs": inputs,
        "output": str(output),
        "min_shards": 4,
        "workers": 2,
        "dedupe": True,
        **more,
    }
    return ShardConfig.parse(values)


def shard(root, output, stop=never, **more):
    return run(config(root, output, **more), stop, Provenance())


@pytest.fixture
def root(pictures):
    folder = pictures(20)
    for i in (3, 11):
        shutil.copy(folder / f"part-1/picture {i:04d}.JPEG", folder / f"copy-of-{i}.jpg")
    shutil.copy(folder / "copy-of-3.jpg", folder / "part-1/zz.jpg")
    for name in ("empty-1.jpg", "empty-2.jpg"):
        (folder / name).write_bytes(b"")
    for name in ("text-1.jpg", "text-2.jpg"):
        (folder / name).write_bytes(b"no image")
    return folder


def test_counts_add_up_and_the_list_names_the_pairs(root, tmp_path):
    report = shard(root, tmp_path / "out", max_bad=3).report
    counts = [report[key] for key in ("found", "samples", "rejected", "duplicates")]
    assert counts == [27, 20, 3, 4]  # two are empty, one is no image and the next the same again
    assert report["rejects"]["reasons"] == {"empty file": 2, "not an image, or of an unknown format": 1}
    manifest = read_manifest(open_store(tmp_path / "out"))
    data = (tmp_path / "out/duplicates.jsonl").read_bytes()
    assert manifest.duplicates_list.sha256 == hashlib.sha256(data).hexdigest()
    assert list(map(json.loads, data.splitlines())) == [
        {"path": "part-1/picture 0003.JPEG", "same_as": "copy-of-3.jpg"},
        {"path": "part-1/picture 0011.JPEG", "same_as": "copy-of-11.jpg"},
        {"path": "part-1/zz.jpg", "same_as": "copy-of-3.jpg"},
        {"path": "text-2.jpg", "same_as": "text-1.jpg"},
    ]
    assert sum(entry.samples for entry in manifest.shards) == 20
    assert verify(str(tmp_path / "out")).ok


def test_without_it_nothing_is_hashed_and_all_stay(root, tmp_path, monkeypatch):
    monkeypatch.setattr(dedupe, "hash_chunk", None)
    report = shard(root, tmp_path / "out", dedupe=False, max_bad=4).report
    assert (report["duplicates"], report["samples"]) == (0, 23)
    assert not (tmp_path / "out/duplicates.jsonl").exists()


def test_stopped_while_hashing_it_goes_on_with_what_it_has(pictures, tmp_path, monkeypatch):
    root = pictures(80)
    shutil.copy(root / "part-0/picture 0000.JPEG", root / "again.jpg")
    shard(root, tmp_path / "reference")
    answers = iter([False, False])
    stopped = shard(root, tmp_path / "out", stop=lambda: next(answers, True), workers=1)
    assert stopped.outcome is Outcome.STOPPED
    kept = sorted((tmp_path / "out/.progress").glob("hashes-*"))
    assert len(kept) == 2
    asked = []
    original = Workers.run

    def watched(self, function, tasks, stop):
        if function is hash_chunk:
            tasks = list(tasks)
            asked.extend(task.number for task in tasks)
        return original(self, function, tasks, stop)

    monkeypatch.setattr(Workers, "run", watched)
    shard(root, tmp_path / "out")
    assert asked == [2]
    for path in (tmp_path / "reference").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_server_in_trouble_is_not_taken_for_a_bad_file(root, tmp_path):
    class Broken:
        address = "broken"

        def read(self, entry):
            raise OSError(24, "Too many open files")

    catalog = build_catalog([("folder", str(root))])
    with pytest.raises(HvcError, match="Too many open files"):
        hash_chunk(Chunk(0, (catalog.record(0),), (Broken(),)))
