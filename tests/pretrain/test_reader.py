"""Bytes by sample number: from folders and S3, with and without a cache, and what is not as written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_data import pictures, write_dataset

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.data.fetcher import MAX_GAP, MAX_RANGE, coalesce
from hvc.pretrain.data.indexes import Counts
from hvc.pretrain.data.reader import CorruptSampleError, SampleReader
from hvc.pretrain.recipe import TrainConfig

IMAGES = pictures(50)


@pytest.fixture
def folder(tmp_path):
    write_dataset(tmp_path / "set", IMAGES, 20)
    return tmp_path / "set"


def open_reader(address, **stream: object) -> SampleReader:
    config = TrainConfig.parse({"data": str(address), "stream": stream})
    return SampleReader(load_data(config), config.stream)


def counts(reader: SampleReader) -> dict[str, int]:
    return dict(zip(Counts.NAMES, reader.take_counts().tolist(), strict=True))


def at_s3(folder: Path, bucket: str) -> str:
    store = open_store(f"{bucket}/set")
    for path in sorted(folder.iterdir()):
        store.write(path.name, path.read_bytes())
    return store.address


def test_a_folder_gives_what_was_written(folder):
    reader = open_reader(folder)
    order = np.random.default_rng(0).permutation(50).tolist()
    assert [reader.image_bytes(sample) for sample in order] == [IMAGES[sample] for sample in order]
    assert reader.next_in_shard(18) == 19
    assert reader.next_in_shard(19) == 0
    assert reader.next_in_shard(49) == 40


@pytest.mark.services
@pytest.mark.parametrize("buffer_mb", [0.005, 64])
def test_s3_gives_what_was_written(folder, s3_env, buffer_mb):
    reader = open_reader(at_s3(folder, s3_env.bucket("reader")), buffer_mb=buffer_mb)
    order = np.random.default_rng(0).permutation(50).tolist()
    for start in range(0, 50, 7):
        reader.expect(order[start : start + 7])
    assert [reader.image_bytes(sample) for sample in order] == [IMAGES[sample] for sample in order]
    reader.expect(order * 3)  # each again before all were asked for once
    reader.prefetch(order * 3)
    assert [reader.image_bytes(sample) for sample in order * 3] == [IMAGES[sample] for sample in order * 3]
    assert reader.image_bytes(3) == IMAGES[3]  # nobody expected it
    reader.expect([5, 5])  # twice in a row, and held in between
    assert [reader.image_bytes(5), reader.image_bytes(5)] == [IMAGES[5]] * 2
    reader.close()


@pytest.mark.services
def test_a_block_is_one_request(folder, s3_env):
    reader = open_reader(at_s3(folder, s3_env.bucket("blocks")), block=10)
    order = np.random.default_rng(0).permutation(50).tolist()
    reader.expect(order)
    for sample in order:
        reader.image_bytes(sample)
    assert counts(reader)["requests"] == 3 + 3  # blocks that lie side by side are one; and indexes
    reader.expect([0, 25, 49])
    for sample in (0, 25, 49):
        reader.image_bytes(sample)
    assert counts(reader)["requests"] == 3
    reader.expect([2, 3, 4])
    assert reader.image_bytes(2) == IMAGES[2]
    assert counts(reader)["bytes"] < sum(map(len, IMAGES[2:5])) + 2 * 2048  # nothing beyond what is wanted


@pytest.mark.services
def test_the_cache_spares_requests_and_heals(folder, s3_env, tmp_path):
    address, order = at_s3(folder, s3_env.bucket("cached")), list(range(50))[::-1]

    def epoch() -> dict[str, int]:
        reader = open_reader(address, cache=str(tmp_path / "cache"))
        reader.expect(order)
        assert [reader.image_bytes(sample) for sample in order] == [IMAGES[sample] for sample in order]
        reader.close()
        return counts(reader)

    first, second = epoch(), epoch()
    assert (first["cache_hits"], first["cache_misses"]) == (0, 5)
    assert (second["cache_hits"], second["cache_misses"], second["requests"]) == (5, 0, 3)
    victim = next((tmp_path / "cache").glob("??/*"))
    victim.write_bytes(victim.read_bytes()[:-9])
    assert epoch()["cache_misses"] == 1
    assert epoch()["cache_hits"] == 5


@pytest.mark.services
def test_an_unwritable_cache_is_said_once_and_costs_nothing(folder, s3_env, tmp_path):
    (tmp_path / "file").write_text("")
    reader = open_reader(at_s3(folder, s3_env.bucket("nocache")), cache=str(tmp_path / "file" / "cache"))
    reader.expect([1, 2])
    assert [reader.image_bytes(1), reader.image_bytes(2)] == IMAGES[1:3]
    assert "training goes on without" in (reader.trouble() or "")


def test_altered_bytes_are_noticed(folder):
    tar = folder / "shard-000001.tar"
    data = bytearray(tar.read_bytes())
    at = data.find(IMAGES[23])
    data[at + 100] ^= 1
    tar.write_bytes(data)
    reader = open_reader(folder)
    with pytest.raises(CorruptSampleError, match=r"shard-000001\.tar: sample 000000023: its bytes are not"):
        reader.image_bytes(23)
    assert reader.image_bytes(22) == IMAGES[22]
    assert counts(reader)["refetches"] == 1


def test_a_missing_or_shortened_shard_is_an_error_at_once(folder):
    reader = open_reader(folder)
    (folder / "shard-000000.tar").unlink()
    tar = folder / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:5000])
    for sample, shard in ((0, "shard-000000"), (39, "shard-000001")):
        with pytest.raises(HvcError, match=shard) as caught:
            reader.image_bytes(sample)
        assert not isinstance(caught.value, CorruptSampleError)


def test_an_altered_or_exchanged_index_is_an_error_at_once(folder):
    index = folder / "shard-000000.idx"
    shutil.copy(folder / "shard-000001.idx", index)
    with pytest.raises(HvcError, match=r"shard-000000\.idx: altered since.*hvc verify"):
        open_reader(folder).image_bytes(0)


def test_few_files_are_open_at_once(tmp_path, monkeypatch):
    from hvc.pretrain.data import reader as module

    monkeypatch.setattr(module, "_OPEN_FILES", 3)
    write_dataset(tmp_path / "set", IMAGES[:20], 2)
    reader = open_reader(tmp_path / "set")

    def open_tars() -> int:
        links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return sum(str(tmp_path) in link for link in links)

    for sample in list(range(20)) * 2:
        assert reader.image_bytes(sample) == IMAGES[sample]
        assert 0 < open_tars() <= 3
    del reader
    assert open_tars() == 0


sizes = st.lists(st.tuples(st.integers(0, 2 * MAX_GAP), st.integers(0, MAX_RANGE)), max_size=30)


@given(sizes, st.data())
def test_requests_cover_what_is_wanted_and_little_else(shard, data):
    gaps, lengths = (np.array([pair[n] for pair in shard], np.int64) for n in (0, 1))
    ends = np.cumsum(gaps + lengths + 512)
    offsets = ends - lengths
    missing = data.draw(st.sets(st.integers(0, len(shard)), max_size=3))
    offsets[[number for number in missing if number < len(shard)]] = 0
    wanted = data.draw(st.lists(st.integers(0, len(shard) - 1), unique=True)) if shard else []
    ranges = coalesce(wanted, offsets, lengths)
    found = [position for piece in ranges for position in piece.positions]
    assert sorted(found) == sorted(position for position in wanted if offsets[position])
    for piece in ranges:
        inside = sum(int(lengths[position]) for position in piece.positions)
        assert piece.length <= MAX_RANGE or len(piece.positions) == 1
        assert piece.length <= inside + MAX_GAP * (len(piece.positions) - 1)
        for position in piece.positions:
            assert piece.offset <= offsets[position]
            assert offsets[position] + lengths[position] <= piece.offset + piece.length
