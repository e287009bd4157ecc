"""The stage as a whole: images in, a dataset out."""

import hashlib
import io
import json
import shutil
import tarfile

import pytest
import webdataset
from PIL import Image

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Outcome, Provenance, never
from hvc.base.storage import open_store
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify


SMALL = {"inputs": [{"source": "folder", "address": "a"}], "output": "b"}


def shard(input_folder, output, stop=never, **options):
    options = {"workers": 2, "min_shards": 6, **options}
    source = options.pop("source", "folder")
    inputs = [{"source": source, "address": str(input_folder)}]
    config = ShardConfig.parse({"inputs": inputs, "output": str(output), **options})
    return run(config, stop, Provenance())


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def read_stock(folder):
    """All samples by key, read by webdataset itself."""
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    return {sample["__key__"]: sample for sample in webdataset.WebDataset(tars, shardshuffle=False)}


def test_stock_webdataset_reads_the_same_images(pictures, tmp_path):
    root = pictures(30)
    report = shard(root, tmp_path / "out").report
    samples = read_stock(tmp_path / "out")
    assert len(samples) == report["samples"] == report["found"] == 30
    seen = set()
    for sample in samples.values():
        about = json.loads(sample["json"])
        assert sample["jpg"] == (root / about["path"]).read_bytes()
        with Image.open(io.BytesIO(sample["jpg"])) as image:
            assert image.size == (about["width"], about["height"])
        seen.add(about["path"])
    assert len(seen) == 30


def test_report_manifest_and_files_agree(pictures, tmp_path):
    report = shard(pictures(30), tmp_path / "out").report
    manifest = read_manifest(open_store(tmp_path / "out"))
    assert report == {
        "dataset": str(tmp_path / "out"),
        "digest": manifest.digest,
        "samples": 30,
        "found": 30,
        "rejected": 0,
        "duplicates": 0,
        "shards": len(manifest.shards),
        "bytes": sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar")),
    }
    assert (manifest.name, manifest.source, manifest.rejects) == ("pictures", "folder", None)
    assert len(manifest.shards) > 1
    sizes = {s.samples for s in manifest.shards}
    assert max(sizes) - min(sizes) <= 1
    expected = {name for s in manifest.shards for name in (s.path, s.index.path)} | {"manifest.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    assert str(tmp_path) not in manifest.to_bytes().decode()


def test_the_index_points_at_the_bytes(pictures, tmp_path):
    shard(pictures(12), tmp_path / "out")
    for entry in read_manifest(open_store(tmp_path / "out")).shards:
        data = (tmp_path / "out" / entry.path).read_bytes()
        index = ShardIndex.from_bytes((tmp_path / "out" / entry.index.path).read_bytes())
        with tarfile.open(tmp_path / "out" / entry.path) as archive:
            listed = {
                f"{index.key(i)}.{ext}": data[offset : offset + length]
                for i in range(len(index))
                for ext, (offset, length, _) in index.members(i).items()
            }
            stored = {member.name: archive.extractfile(member).read() for member in archive}
            assert {member.mtime for member in archive.getmembers()} == {0}
        assert listed == stored


def test_the_same_bytes_whatever_the_number_of_workers(pictures, tmp_path):
    root = pictures(30)
    (root / "bad.jpg").write_bytes(b"no image")
    for workers in (1, 3):
        shard(root, tmp_path / f"out{workers}", workers=workers, max_bad=1)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out3")


def test_seed_and_order_decide_the_place_of_a_sample(pictures, tmp_path):
    root = pictures(20)
    orders = {}
    for name, options in {"a": {"seed": 1}, "b": {"seed": 2}, "c": {"order": "input"}}.items():
        shard(root, tmp_path / name, **options)
        orders[name] = [json.loads(s["json"])["path"] for s in read_stock(tmp_path / name).values()]
    assert orders["c"] == sorted(orders["a"]) == sorted(orders["b"])
    assert orders["a"] != orders["b"]
    assert orders["a"] != orders["c"] != orders["b"]


def test_imagenet_labels_travel(pictures, tmp_path, encode):
    for label, wnid in enumerate(["n00000003", "n00000007"]):
        for i in range(4):
            path = tmp_path / "in" / wnid / f"{wnid}_{i}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode("JPEG", 10 * label + i))
    shard(tmp_path / "in", tmp_path / "out", source="imagenet", name="tiny")
    manifest = read_manifest(open_store(tmp_path / "out"))
    assert manifest.classes == ("n00000003", "n00000007")
    assert (manifest.name, manifest.source) == ("tiny", "imagenet")
    for sample in read_stock(tmp_path / "out").values():
        wnid = json.loads(sample["json"])["path"].partition("/")[0]
        assert manifest.classes[int(sample["cls"])] == wnid


def test_rejects_are_listed_and_counted(pictures, tmp_path, encode):
    root = pictures(20)
    good = encode("JPEG", 99)
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.png").write_text("hello")
    (root / "half.jpeg").write_bytes(good[: len(good) // 2])
    (root / "large.png").write_bytes(encode("PNG", 1, width=300, height=200))
    (root / "gone.jpg").symlink_to(root / "nowhere")
    (root / "really-png.JPEG").write_bytes(encode("PNG", 2, mode="L"))
    report = shard(root, tmp_path / "out", max_bad=5, max_pixels=50_000).report
    assert (report["found"], report["samples"], report["rejected"]) == (26, 21, 5)
    manifest = read_manifest(open_store(tmp_path / "out"))
    data = (tmp_path / "out/rejects.jsonl").read_bytes()
    assert manifest.rejects.sha256 == hashlib.sha256(data).hexdigest()
    reasons = {line["path"]: line["reason"] for line in map(json.loads, data.splitlines())}
    assert list(reasons) == ["empty.jpg", "gone.jpg", "half.jpeg", "large.png", "text.png"]
    assert reasons["empty.jpg"] == "empty file"
    assert reasons["gone.jpg"] == "cannot be read: No such file or directory"
    assert "truncated" in reasons["half.jpeg"]
    assert reasons["large.png"] == "more than 50000 pixels"
    assert sum("png" in sample for sample in read_stock(tmp_path / "out").values()) == 1
    assert verify(str(tmp_path / "out")).ok


def test_a_reject_moves_no_other_sample(pictures, tmp_path):
    root = pictures(20)
    victim = root / "part-1" / "picture 0005.JPEG"
    shard(root, tmp_path / "whole")
    size = victim.stat().st_size
    victim.write_bytes(b"x" * size)
    shard(root, tmp_path / "gap", max_bad=1)
    whole, gap = contents(tmp_path / "whole"), contents(tmp_path / "gap")
    changed = {name for name in whole if name.endswith(".tar") and whole[name] != gap[name]}
    assert len(changed) == 1


def test_shards_without_a_good_image_are_left_out(pictures, tmp_path):
    root = pictures(4)
    for path in sorted(root.rglob("*.JPEG"))[:2]:
        path.write_bytes(b"bad")
    report = shard(root, tmp_path / "out", max_bad=2, min_shards=4).report
    assert (report["samples"], report["shards"]) == (2, 2)
    assert verify(str(tmp_path / "out")).ok
    assert len(read_stock(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("max_bad", "bad", "passes"),
    [(0, 1, False), (1, 1, True), (1, 2, False), (0.1, 2, True), (0.1, 3, False), (1.0, 3, True)],
)
def test_max_bad_is_a_number_or_a_share(pictures, tmp_path, max_bad, bad, passes):
    root = pictures(20)
    for path in sorted(root.rglob("*.JPEG"))[:bad]:
        path.write_bytes(b"bad")
    if passes:
        assert shard(root, tmp_path / "out", max_bad=max_bad).report["rejected"] == bad
        return
    with pytest.raises(HvcError, match=r"images are bad.*raise max_bad:\n  .*: not an image"):
        shard(root, tmp_path / "out", max_bad=max_bad)
    assert not (tmp_path / "out/manifest.json").exists()
    assert shard(root, tmp_path / "out", max_bad=1.0).report["rejected"] == bad


@pytest.mark.parametrize("value", [-1, -0.5, 1.5, "few", True])
def test_max_bad_refuses_nonsense(tmp_path, value):
    with pytest.raises(UsageError, match="max_bad"):
        ShardConfig.parse({**SMALL, "max_bad": value})


def test_nothing_but_bad_images_is_no_dataset(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"")
    with pytest.raises(HvcError, match=r"none of the 1 images.*a\.jpg: empty file"):
        shard(tmp_path / "in", tmp_path / "out", max_bad=1.0)
    assert not (tmp_path / "out/manifest.json").exists()


def test_a_finished_dataset_is_left_as_it_is(pictures, tmp_path):
    root = pictures(10)
    first = shard(root, tmp_path / "out").report
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = shard(root, tmp_path / "out", workers=1).report
    assert again == {**first, "already_done": True}
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(HvcError, match=r"made differently \(seed 0, now 7\); choose another output"):
        shard(root, tmp_path / "out", seed=7)
    shutil.copy(root / "part-0/picture 0000.JPEG", root / "new.jpg")
    with pytest.raises(HvcError, match=r"made differently \(other images\)"):
        shard(root, tmp_path / "out")


def test_stop_saves_and_the_next_run_goes_on(pictures, tmp_path):
    root = pictures(30)
    shard(root, tmp_path / "reference")
    answers = iter([False, False, False])
    stopped = shard(root, tmp_path / "out", stop=lambda: next(answers, True), workers=1)
    assert stopped.outcome is Outcome.STOPPED
    assert stopped.exit_code == 75
    assert stopped.report["shards_done"] == 3
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert len(kept) == 3
    with pytest.raises(HvcError, match="was sharding finished"):
        verify(str(tmp_path / "out"))
    assert shard(root, tmp_path / "out").outcome is Outcome.DONE
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")


def test_a_shard_damaged_between_two_runs_is_made_again(pictures, tmp_path):
    root = pictures(30)
    shard(root, tmp_path / "reference")
    answers = iter([False, False, False])
    shard(root, tmp_path / "out", stop=lambda: next(answers, True), workers=1)
    first, second, third = sorted((tmp_path / "out").glob("*.tar"))
    first.write_bytes(b"x" * first.stat().st_size)
    second.with_suffix(".idx").unlink()
    third.unlink()
    (tmp_path / "out/.progress/shard-000001.json").write_text("{")
    shard(root, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")


def test_another_plan_replaces_unfinished_work(pictures, tmp_path):
    root = pictures(30)
    shard(root, tmp_path / "reference", min_shards=4)
    answers = iter([False] * 12)
    shard(root, tmp_path / "out", stop=lambda: next(answers, True), workers=1, min_shards=15)
    shard(root, tmp_path / "out", min_shards=4)
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")


def test_foreign_shards_are_not_touched(pictures, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/shard-000000.tar").write_bytes(b"mine")
    with pytest.raises(HvcError, match=r"shard-000000\.tar is already there.*choose an empty output"):
        shard(pictures(3), tmp_path / "out")
    assert contents(tmp_path / "out") == {"shard-000000.tar": b"mine"}


def test_wrong_places_are_named(pictures, tmp_path):
    with pytest.raises(UsageError, match=r"input .*missing: no such folder"):
        shard(tmp_path / "missing", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(HvcError, match=r"cannot .*file/.*: Not a directory"):
        shard(pictures(3), tmp_path / "file")
    with pytest.raises(UsageError, match=r"only folders and s3://"):
        shard(pictures(3), "gs://bucket/x")


@pytest.mark.shared
def test_real_photos(shared, tmp_path):
    report = shard(shared / "data/photos", tmp_path / "out", target_mb=4, min_shards=1).report
    assert (report["samples"], report["rejected"], report["shards"]) == (164, 0, 3)
    assert verify(str(tmp_path / "out")).ok
    for sample in read_stock(tmp_path / "out").values():
        path = shared / "data/photos" / json.loads(sample["json"])["path"]
        assert sample["jpg"] == path.read_bytes()


def test_a_finished_dataset_may_be_read_only(pictures, tmp_path):
    root = pictures(3)
    shard(root, tmp_path / "out")
    (tmp_path / "out").chmod(0o555)
    before = (tmp_path / "out").stat().st_mtime_ns
    assert shard(root, tmp_path / "out").report["already_done"]
    assert (tmp_path / "out").stat().st_mtime_ns == before, "something was written"
    (tmp_path / "out").chmod(0o755)


@pytest.mark.parametrize("value", [-1, 1.5, -0.1, float("nan"), True, "many", None])
def test_max_bad_is_a_count_or_a_share(value):
    with pytest.raises(UsageError, match=r"^config: max_bad: ") as caught:
        ShardConfig.parse({**SMALL, "max_bad": value})
    assert "constrained" not in str(caught.value)
    for good in (0, 10, 0.0, 0.01, 1.0):
        parsed = ShardConfig.parse({**SMALL, "max_bad": good}).max_bad
        assert (parsed, type(parsed)) == (good, type(good))


@pytest.mark.parametrize("output", ["", " "])
def test_an_empty_output_is_refused(output):
    with pytest.raises(UsageError, match=r"output: .*is empty"):
        ShardConfig.parse({**SMALL, "output": output})
