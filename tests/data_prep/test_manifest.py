"""The manifest: the dataset's name, and what is refused."""

import json

import pytest

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep.manifest import FileRef, Made, Manifest, Shard, read_manifest

HASH = "0" * 63


def manifest(**changes) -> Manifest:
    shards = tuple(
        Shard(
            path=f"shard-{i:06d}.tar",
            bytes=10240,
            sha256=f"{HASH}{i}",
            samples=i + 1,
            index=FileRef(path=f"shard-{i:06d}.idx", sha256=f"{HASH}f"),
        )
        for i in range(3)
    )
    made = Made(
        order="shuffled",
        seed=0,
        target_mb=100,
        min_shards=1,
        max_pixels=10**8,
        input=f"{HASH}a",
        hvc="0.1.0",
    )
    values = {"name": "toy", "source": "folder", "made": made, "samples": 6, "found": 7, "rejected": 1}
    return Manifest(**{**values, "shards": shards, **changes}).sealed()


def test_round_trip(tmp_path):
    store = open_store(tmp_path)
    store.write("manifest.json", manifest().to_bytes())
    assert read_manifest(store) == manifest()


def test_the_digest_names_shards_and_counts_only():
    base = manifest()
    assert manifest(name="other", source="imagenet", classes=("n01440764",)).digest == base.digest
    assert manifest(made=base.made.model_copy(update={"seed": 5})).digest == base.digest
    assert manifest(shards=base.shards[::-1]).digest != base.digest
    assert manifest(shards=base.shards[:2], samples=3, found=4).digest != base.digest
    recounted = base.shards[0].model_copy(update={"samples": 2})
    assert manifest(shards=(recounted, *base.shards[1:])).digest != base.digest


def test_a_folder_without_manifest_is_no_dataset(tmp_path):
    with pytest.raises(
        HvcError, match=r"no dataset at .*manifest\.json is missing; was sharding finished\?"
    ):
        read_manifest(open_store(tmp_path))


def tamper(path, value):
    plain = json.loads(manifest().to_bytes())
    *parents, last = path
    place = plain
    for key in parents:
        place = place[key]
    place[last] = value
    return json.dumps(plain).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a manifest of hvc"),
        (tamper(["format"], "other"), "not a manifest of hvc"),
        (tamper(["version"], 2), "version 2, this hvc reads up to 1; update hvc"),
        (tamper(["version"], "x"), "unknown version 'x'"),
        (tamper(["shards", 0, "path"], "../../etc/passwd"), "unsafe object name"),
        (tamper(["shards", 0, "index", "path"], "/etc/passwd"), "unsafe object name"),
        (tamper(["shards", 1, "bytes"], "many"), r"shards\.1\.bytes"),
        (tamper(["shards", 1, "sha256"], f"{HASH}e"), "the digest does not match"),
        (tamper(["surprise"], 1), "surprise"),
        (tamper(["found"], 99), "`found` is not"),
    ],
)
def test_what_is_refused_says_why(data, message):
    with pytest.raises(HvcError, match=message):
        Manifest.from_bytes(data, "x/manifest.json")


def test_samples_must_add_up():
    wrong = manifest(samples=5, found=6)
    with pytest.raises(HvcError, match="`samples` is not the sum"):
        Manifest.from_bytes(wrong.to_bytes(), "manifest.json")
