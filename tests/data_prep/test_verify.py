"""Every kind of damage is found and named."""

import json
import shutil
import tracemalloc
import zlib
from pathlib import Path

import pytest
from small_dataset import picture, resealed

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Provenance, never
from hvc.base.storage import open_store
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import Manifest, read_manifest
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.stock import check_stock
from hvc.data_prep.tar import end, header
from hvc.data_prep.verify import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root, out = tmp_path_factory.mktemp("input"), tmp_path_factory.mktemp("made") / "out"
    for number in range(12):
        (root / f"{number:02d}.jpg").write_bytes(picture(number))
    (root / "bad.jpg").write_bytes(b"")
    (root / "same.jpg").write_bytes(picture(0))
    shard(root, out)
    return out


def shard(root, out):
    config = {
        "inputs": [{"source": "folder", "address": str(root)}],
        "output": str(out),
        "min_shards": 3,
        "max_bad": 1,
        "workers": 1,
        "dedupe": True,
    }
    run(ShardConfig.parse(config), never, Provenance())


@pytest.fixture
def dataset(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "out"))


def problems(dataset):
    return [str(problem) for problem in verify(str(dataset)).problems]


def test_a_whole_dataset(dataset):
    report = verify(str(dataset), workers=2)
    assert report.ok
    assert (report.shards, report.samples) == (3, 12)
    assert report.bytes == sum(path.stat().st_size for path in dataset.glob("*.tar"))
    assert verify(str(dataset), workers=0) == report
    with pytest.raises(UsageError, match="workers -1"):
        verify(str(dataset), workers=-1)


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0, 0.01, 0.3, 0.999])
@pytest.mark.parametrize("name", ["shard-000001.idx", "rejects.jsonl", "duplicates.jsonl"])
def test_one_wrong_bit_anywhere(dataset, name, place):
    flip(dataset / name, place)
    assert problems(dataset) == [f"{name}: its content is not what was written (sha256 differs)"]


@pytest.mark.parametrize(
    "name", ["shard-000002.tar", "shard-000002.idx", "rejects.jsonl", "duplicates.jsonl"]
)
def test_a_missing_file(dataset, name):
    (dataset / name).unlink()
    assert problems(dataset) == [f"{name}: missing"]


def test_a_truncated_shard(dataset):
    path = dataset / "shard-000000.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert problems(dataset) == [f"{path.name}: {size - 1} bytes, the manifest says {size}"]


def test_a_surplus_shard(dataset):
    (dataset / "shard-000003.tar").write_bytes(b"")
    (dataset / "README").write_text("a file that is not ours is no problem")
    assert problems(dataset) == ["shard-000003.tar: not in the manifest, remove it"]


def test_all_problems_are_named_at_once(dataset):
    (dataset / "shard-000000.idx").unlink()
    flip(dataset / "shard-000001.tar", 0.5)
    (dataset / "shard-000002.tar").unlink()
    assert {problem.file for problem in verify(str(dataset)).problems} == {
        "shard-000000.idx",
        "shard-000001.tar",
        "shard-000002.tar",
    }


def test_damaged_samples_are_named(dataset):
    path = dataset / "shard-000001.tar"
    index = ShardIndex.from_bytes((dataset / "shard-000001.idx").read_bytes())
    data = bytearray(path.read_bytes())
    for sample in (0, 2):
        data[index.members(sample)["jpg"].offset + 9] ^= 1
    data[0] ^= 1  # in the first header
    data[-1] ^= 1
    path.write_bytes(data)
    first, third = (f"{index.key(sample)}.jpg" for sample in (0, 2))
    assert problems(dataset) == [
        f"{path.name}: its content is not what was written (sha256 differs): "
        f"altered data: {first}, {third}; damaged headers: {first}; no zeros after: the last member"
    ]


def test_an_index_that_describes_another_tar(dataset):
    path = dataset / "shard-000000.idx"
    index = ShardIndex.from_bytes(path.read_bytes())
    table = [(index.key(i), index.members(i)) for i in range(len(index))]

    def check(change, expected):
        changed = {ext: change(ext, tuple(member)) for ext, member in table[1][1].items()}
        path.write_bytes(ShardIndex.build([table[0], (table[1][0], changed), *table[2:]]).to_bytes())
        resealed(dataset)
        assert problems(dataset) == [f"{path.name}: does not describe shard-000000.tar: {expected}"]

    gap = "its members do not follow each other from the tar's first to its last byte"
    check(lambda ext, at: (at[0] + 512, *at[1:]) if ext == "jpg" else at, gap)
    check(
        lambda ext, at: (at[0], 1 << 40, at[2]), f"it points beyond the {size_of(dataset)} bytes of the tar"
    )
    name = f"{table[1][0]}.json"
    check(lambda ext, at: (*at[:2], at[2] ^ (ext == "json")), f"altered data: {name}")
    check(
        lambda ext, at: (at[0], at[1] - (ext == "json"), at[2]),
        f"altered data: {name}; damaged headers: {name}; no zeros after: {name}",
    )


def size_of(dataset):
    return (dataset / "shard-000000.tar").stat().st_size


def test_a_shard_that_is_no_tar(dataset):
    (dataset / "shard-000000.tar").write_bytes(bytes(size_of(dataset)))
    resealed(dataset)
    [problem] = problems(dataset)
    assert problem.startswith("shard-000000.idx: does not describe shard-000000.tar: altered data: ")


def test_lists_that_count_otherwise(dataset):
    (dataset / "duplicates.jsonl").write_bytes(2 * (dataset / "duplicates.jsonl").read_bytes())
    resealed(dataset)
    assert problems(dataset) == ["duplicates.jsonl: 2 lines, the manifest says 1"]


def test_a_shard_named_twice(dataset):
    plain = json.loads((dataset / "manifest.json").read_bytes())
    plain["shards"][1] = plain["shards"][0]
    plain.update(samples=sum(one["samples"] for one in plain["shards"]), rejected=0, duplicates=0)
    plain["found"] = plain["samples"]
    manifest = Manifest.model_validate({**plain, "digest": ""}).sealed()
    (dataset / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(HvcError, match=r"names a file twice: shard-000000\.tar"):
        problems(dataset)


def test_leftovers_are_notes(dataset):
    (dataset / ".progress").mkdir()
    (dataset / ".progress" / "plan.json").write_text("{}")
    (dataset / ".manifest.json.123.tmp").write_text("{")
    report = verify(str(dataset))
    assert report.ok
    assert report.notes == [
        ".progress/: 1 files of a run that was not finished",
        ".manifest.json.123.tmp: left by a write that was killed",
    ]


def test_surplus_lists(dataset):
    (dataset / "groups.jsonl").write_text("")
    assert problems(dataset) == ["groups.jsonl: not in the manifest, remove it"]


def test_no_dataset_at_all(tmp_path):
    with pytest.raises(HvcError, match="no dataset at"):
        verify(str(tmp_path))


def test_memory_stays_bounded(tmp_path):
    """One member of 100 MB: no more than a few pieces of it are in memory at a time."""
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    (root / "x.png").write_bytes(picture(1, "PNG"))
    shard(root, out)
    tar, idx = out / "shard-000000.tar", out / "shard-000000.idx"
    index = ShardIndex.from_bytes(idx.read_bytes())
    size = 100 << 20
    content = {"json": b"{}", "png": bytes(size)}
    samples = {}
    with tar.open("wb") as file:
        for ext, data in content.items():
            head = header(f"{index.key(0)}.{ext}", len(data))
            samples[ext] = (file.tell() + 512, len(data), zlib.crc32(data))
            file.write(head + data + bytes(-len(data) % 512))
        file.write(end(file.tell()))
    idx.write_bytes(ShardIndex.build([(index.key(0), samples)]).to_bytes())
    resealed(out)
    del content, data
    tracemalloc.start()
    assert problems(out) == []
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


@pytest.mark.slow
def test_stock_webdataset_agrees(made, tmp_path):
    store = open_store(made)
    shards = read_manifest(store).shards
    assert check_stock(store, shards) == []
    dataset = Path(shutil.copytree(made, tmp_path / "out"))
    shutil.copy(dataset / "shard-000001.tar", dataset / "shard-000000.tar")
    [problem] = check_stock(open_store(dataset), shards)
    assert problem.file == "shard-000000.tar"


@pytest.mark.services
def test_on_s3(s3_env, made):
    address = s3_env.bucket("verify")
    store = open_store(address)
    for path in made.iterdir():
        store.write(path.name, path.read_bytes())
    assert verify(address) == verify(str(made))
    store.write("shard-000000.tar", (made / "shard-000000.tar").read_bytes()[:-1])
    store.delete("shard-000001.idx")
    store.write("shard-000007.idx", b"")
    assert [problem.file for problem in verify(address).problems] == [
        "shard-000000.tar",
        "shard-000001.idx",
        "shard-000007.idx",
    ]
