"""Every kind of damage is found and named."""

import hashlib
import json

import pytest

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Provenance, never
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import Manifest
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify


@pytest.fixture
def dataset(pictures, tmp_path):
    root = pictures(12)
    (root / "bad.jpg").write_bytes(b"")
    config = {
        "input": str(root),
        "output": str(tmp_path / "out"),
        "min_shards": 3,
        "max_bad": 1,
        "workers": 1,
    }
    run(ShardConfig.parse(config), never, Provenance())
    return tmp_path / "out"


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
@pytest.mark.parametrize("name", ["shard-000001.tar", "shard-000001.idx", "rejects.jsonl"])
def test_one_wrong_bit_anywhere(dataset, name, place):
    flip(dataset / name, place)
    assert verify(str(dataset)).problems == [
        f"{name}: its content is not what was written (sha256 differs)"
    ]


@pytest.mark.parametrize("name", ["shard-000002.tar", "shard-000002.idx", "rejects.jsonl"])
def test_a_missing_file(dataset, name):
    (dataset / name).unlink()
    assert verify(str(dataset)).problems == [f"{name}: missing"]


def test_a_truncated_shard(dataset):
    path = dataset / "shard-000000.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert verify(str(dataset)).problems == [f"{path.name}: {size - 1} bytes, the manifest says {size}"]


def test_a_surplus_shard(dataset):
    (dataset / "shard-000003.tar").write_bytes(b"")
    (dataset / "README").write_text("a file that is not ours is no problem")
    assert verify(str(dataset)).problems == ["shard-000003.tar: not in the manifest, remove it"]


def test_all_problems_are_named_at_once(dataset):
    (dataset / "shard-000000.idx").unlink()
    flip(dataset / "shard-000001.tar", 0.5)
    (dataset / "shard-000002.tar").unlink()
    assert {problem.partition(":")[0] for problem in verify(str(dataset)).problems} == {
        "shard-000000.idx",
        "shard-000001.tar",
        "shard-000002.tar",
    }


def reseal(dataset, shard, **changes):
    """A manifest with right hashes for files that are wrong in themselves."""
    plain = json.loads((dataset / "manifest.json").read_bytes())
    plain["shards"][shard].update(changes)
    manifest = Manifest.model_validate({**plain, "digest": ""}).sealed()
    (dataset / "manifest.json").write_bytes(manifest.to_bytes())


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_an_index_that_describes_another_tar(dataset):
    path = dataset / "shard-000000.idx"
    index = ShardIndex.from_bytes(path.read_bytes())
    table = [(index.key(i), index.members(i)) for i in range(len(index))]
    key, members = table[1]
    table[1] = (key, {**members, "jpg": (members["jpg"][0] + 512, members["jpg"][1])})
    data = ShardIndex.build(table).to_bytes()
    path.write_bytes(data)
    reseal(dataset, 0, index={"path": path.name, "sha256": sha256(data)})
    assert verify(str(dataset)).problems == [
        f"{path.name}: does not describe the members of shard-000000.tar"
    ]


def test_a_shard_that_is_no_tar(dataset):
    data = b"this is no tar at all" * 1000
    (dataset / "shard-000000.tar").write_bytes(data)
    reseal(dataset, 0, sha256=sha256(data), bytes=len(data))
    assert verify(str(dataset)).problems == ["shard-000000.tar: not a tar"]


def test_no_dataset_at_all(tmp_path):
    with pytest.raises(HvcError, match="no dataset at"):
        verify(str(tmp_path))
