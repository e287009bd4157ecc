"""The manifest: the dataset's name, and what is refused."""

import json

import pytest

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.data_prep.manifest import FileRef, Frames, Made, Manifest, Shard, read_manifest

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
    lists = {
        name: FileRef(path=f"{name}.jsonl", sha256=f"{HASH}b")
        for name in ("rejects", "duplicates_list", "groups")
    }
    more = {
        "sources": ("coco", "video"),
        "check": "header",
        "max_side": 512,
        "quality": 90,
        "dedupe": True,
        "extras": ("captions",),
        "frames": Frames(fps=2.0),
        "pillow": "11.0.0",
    }
    whole = manifest(**lists, made=manifest().made.model_copy(update=more), found=9, duplicates=2)
    for one in (manifest(), whole):
        store.write("manifest.json", one.to_bytes())
        assert read_manifest(store) == one
        assert one.version == 2


VERSION_1 = """
{"format": "hvc-manifest", "version": 1, "name": "toy", "source": "folder",
 "made": {"order": "shuffled", "seed": 0, "target_mb": 100.0, "min_shards": 1, "max_pixels": 100000000,
  "input": "000000000000000000000000000000000000000000000000000000000000000a", "hvc": "0.1.0"},
 "samples": 1, "found": 2, "rejected": 1, "duplicates": 0,
 "rejects": {"path": "rejects.jsonl",
  "sha256": "000000000000000000000000000000000000000000000000000000000000000b"},
 "shards": [{"path": "shard-000000.tar", "bytes": 10240,
  "sha256": "0000000000000000000000000000000000000000000000000000000000000000", "samples": 1,
  "index": {"path": "shard-000000.idx",
   "sha256": "000000000000000000000000000000000000000000000000000000000000000f"}}],
 "classes": [],
 "digest": "ae4ea664a2090d4280bf4c157af2ead41dcf03c7598dd6fe8331d37af7028de6"}
"""


def test_a_manifest_of_version_1_is_still_read():
    old = Manifest.from_bytes(VERSION_1.encode(), "manifest.json")
    assert (old.version, old.samples, old.duplicates_list, old.groups) == (1, 1, None, None)
    assert (old.made.check, old.made.dedupe, old.made.sources) == ("full", False, ())
    with pytest.raises(HvcError, match="the digest does not match"):
        Manifest.from_bytes(VERSION_1.replace('"samples": 1,', '"samples": 2,').encode(), "manifest.json")


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
        (tamper(["version"], 3), "version 3, this hvc reads up to 2; update hvc"),
        (tamper(["version"], "x"), "unknown version 'x'"),
        (tamper(["version"], 0), "unknown version 0"),
        (tamper(["version"], True), "unknown version True"),
        (tamper(["version"], 1), "the digest does not match"),
        (tamper(["shards", 0, "path"], "../../etc/passwd"), "unsafe object name"),
        (tamper(["shards", 0, "index", "path"], "/etc/passwd"), "unsafe object name"),
        (tamper(["shards", 1, "bytes"], "many"), r"shards\.1\.bytes"),
        (tamper(["shards", 1, "sha256"], f"{HASH}e"), "the digest does not match"),
        (tamper(["groups"], {"path": "../groups.jsonl", "sha256": f"{HASH}1"}), "unsafe object name"),
        (tamper(["made", "check"], "half"), r"made\.check"),
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
