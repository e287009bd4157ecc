"""The stage as a whole: images in, a dataset out."""

import hashlib
import io
import json
import re
import shutil
import tarfile

import pytest
import webdataset
from PIL import Image
from running import run_hvc

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Outcome, Provenance, never
from hvc.base.storage import open_store
from hvc.data_prep import progress
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.source_names import EXTRAS, Source
from hvc.data_prep.sources import SOURCES
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


def in_parts(root, output, parts, **options):
    """All parts one after the other, then the join; the report of each."""
    reports = [shard(root, output, parts=parts, part=part, **options).report for part in range(parts)]
    return [*reports, shard(root, output, parts=parts, **options).report]


@pytest.mark.parametrize("parts", [2, 5])
def test_parts_and_their_join_make_the_same_dataset(pictures, tmp_path, parts):
    root = pictures(40)
    shutil.copy(root / "part-0/picture 0000.JPEG", root / "again.jpg")
    (root / "bad.jpg").write_bytes(b"no image")
    options = {"min_shards": 7, "dedupe": True, "max_bad": 1}
    whole = shard(root, tmp_path / "whole", **options).report
    *reports, joined = in_parts(root, tmp_path / "out", parts, **options)
    assert [report["shards_done"] for report in reports] == [-(-(7 - k) // parts) for k in range(parts)]
    assert sum(report["rejected"] for report in reports) == 1
    assert joined == {**whole, "dataset": str(tmp_path / "out")}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_the_join_makes_what_no_part_made(pictures, tmp_path):
    root = pictures(30)
    shard(root, tmp_path / "whole")
    shard(root, tmp_path / "out", parts=3, part=1)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.tar")}
    assert sorted(path.name for path in made) == ["shard-000001.tar", "shard-000004.tar"]
    assert not (tmp_path / "out/manifest.json").exists()
    shard(root, tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in made} == made, "made twice"
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_parts_and_whole_keep_each_other_away(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PART_PATIENCE_SECONDS", 0.5)
    root = pictures(6)
    tries = []

    def interfere():
        """Between two shards of part 0: part 1 may run, part 0 again and the whole may not."""
        if not tries:
            tries.append(shard(root, tmp_path / "out", parts=2, part=1).report["shards_done"])
            for part in (0, None):
                with pytest.raises(HvcError, match="another run writes here"):
                    shard(root, tmp_path / "out", parts=2, part=part)
        return False

    shard(root, tmp_path / "out", stop=interfere, parts=2, part=0, workers=1)
    assert tries == [3]
    tries.clear()

    def interfere_with_whole():
        if not tries:
            tries.append(True)
            with pytest.raises(HvcError, match="another run writes here"):
                shard(root, tmp_path / "other", parts=2, part=0)
        return False

    shard(root, tmp_path / "other", stop=interfere_with_whole, workers=1)
    assert shard(root, tmp_path / "out").report["samples"] == 6


def test_a_part_of_another_plan_clears_what_an_unfinished_one_left(pictures, tmp_path):
    root = pictures(30)
    shard(root, tmp_path / "reference", min_shards=4)
    shard(root, tmp_path / "out", parts=2, part=0, min_shards=15)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 8
    shard(root, tmp_path / "out", parts=2, part=0, min_shards=4)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2
    shard(root, tmp_path / "out", min_shards=4)
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")


def test_bad_images_of_all_parts_are_judged_at_the_join(pictures, tmp_path):
    root = pictures(20)
    for path in sorted(root.rglob("*.JPEG"))[:4]:
        path.write_bytes(b"bad")
    with pytest.raises(HvcError, match="4 or more of 20 images are bad"):
        in_parts(root, tmp_path / "out", 2, max_bad=3)
    assert shard(root, tmp_path / "out", max_bad=4).report["rejected"] == 4


def test_a_finished_dataset_has_no_parts_left_to_make(pictures, tmp_path):
    root = pictures(6)
    done = shard(root, tmp_path / "out").report
    assert shard(root, tmp_path / "out", parts=2, part=1).report == {**done, "already_done": True}


def test_several_inputs_of_several_sources_in_one_dataset(pictures, tmp_path, encode):
    for wnid in ("n00000003", "n00000007"):
        path = tmp_path / "net" / wnid / f"{wnid}_0.JPEG"
        path.parent.mkdir(parents=True)
        path.write_bytes(encode("JPEG", int(wnid[-1])))
    values = {
        "inputs": [
            {"source": "folder", "address": str(pictures(3))},
            {"source": "imagenet", "address": str(tmp_path / "net")},
        ],
        "output": str(tmp_path / "out"),
    }
    report = run(ShardConfig.parse(values), never, Provenance()).report
    assert report["samples"] == 5
    manifest = read_manifest(open_store(tmp_path / "out"))
    assert (manifest.name, manifest.source) == ("pictures+net", "folder+imagenet")
    assert manifest.made.sources == ("folder", "imagenet")
    labels = {
        (about["input"], about["path"]): sample.get("cls")
        for sample in read_stock(tmp_path / "out").values()
        for about in [json.loads(sample["json"])]
    }
    assert labels[1, "n00000007/n00000007_0.JPEG"] == b"1"
    assert labels[0, "part-1/picture 0001.JPEG"] is None


def videos(tmp_path, encode):
    """Three videos of 7 frames and two pictures of no video, as `frames` and `folder`."""
    for video in ("a", "b", "c"):
        for frame in range(7):
            path = tmp_path / "videos" / video / f"{frame:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode("JPEG", frame + 10 * ord(video)))
    (tmp_path / "single").mkdir()
    for i in range(2):
        (tmp_path / f"single/{i}.jpg").write_bytes(encode("JPEG", i))
    return [
        {"source": "frames", "address": str(tmp_path / "videos")},
        {"source": "folder", "address": str(tmp_path / "single")},
    ]


def test_frames_stay_together_and_the_groups_list_says_where(tmp_path, encode):
    inputs = videos(tmp_path, encode)
    (tmp_path / "videos/b/00003.jpg").write_bytes(b"bad")
    values = {"inputs": inputs, "output": str(tmp_path / "out"), "min_shards": 5, "max_bad": 1, "seed": 3}
    run(ShardConfig.parse(values), never, Provenance())
    manifest = read_manifest(open_store(tmp_path / "out"))
    data = (tmp_path / "out/groups.jsonl").read_bytes()
    assert manifest.groups.sha256 == hashlib.sha256(data).hexdigest()
    groups = [json.loads(line) for line in data.splitlines()]
    assert sorted((video or "", count) for video, count in groups if video) == [
        ("a", 7),
        ("b", 6),
        ("c", 7),
    ]
    assert sum(count for video, count in groups if video is None) == 2
    told = [video for video, count in groups for _ in range(count)]
    found = [json.loads(sample["json"]) for sample in read_stock(tmp_path / "out").values()]
    assert [about.get("video") for about in found] == told
    for name in "abc":
        frames = [about["frame"] for about in found if about.get("video") == name]
        assert frames == sorted(frames)
    assert verify(str(tmp_path / "out")).ok


def test_the_gate_is_the_configs(pictures, tmp_path):
    root = pictures(4, width=300, height=200)
    (root / "half.jpg").write_bytes(next(root.rglob("*.JPEG")).read_bytes()[:3000])
    shard(root, tmp_path / "out", check="header", max_side=128, quality=50, max_bad=1)
    manifest = read_manifest(open_store(tmp_path / "out"))
    made = manifest.made
    assert (made.check, made.max_side, made.quality) == ("header", 128, 50)
    assert made.pillow is not None
    for sample in read_stock(tmp_path / "out").values():
        with Image.open(io.BytesIO(sample["jpg"])) as image:
            assert max(image.size) == 128
    with pytest.raises(HvcError, match=r"made differently \(max_side 128, now 100\)"):
        shard(root, tmp_path / "out", check="header", max_side=100, quality=50, max_bad=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inputs": []}, "inputs"),
        ({"parts": 2, "part": 2}, "parts are counted from 0 to 1"),
        ({"fps": 1, "stride": 2}, "give one of them"),
        ({"fps": 1}, "no input of the source `video`"),
        ({"extras": ["boxes"]}, "there is no 'boxes'; choose from labels, captions, masks"),
        ({"check": "half"}, "check"),
        ({"quality": 101}, "quality"),
        ({"seed": 2**60}, "seed"),
        ({"inputs": [{"source": "cocoa", "address": "a"}]}, "source"),
        ({"inputs": [{"source": "coco", "address": " "}]}, "is empty"),
        ({"target_size": 3}, "unknown key 'target_size'"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        ShardConfig.parse({**SMALL, **values})


def test_every_source_has_its_name():
    assert set(Source) == set(SOURCES)
    assert set(EXTRAS) == {extra for layout in SOURCES.values() for extra in layout.offers}


def test_a_name_is_made_of_the_inputs():
    inputs = [
        {"source": "coco", "address": address}
        for address in ("/x/train2017.zip", "s3://bucket/some/val2017.tar", "/y/train2017", "/z/photos/")
    ]
    assert ShardConfig.parse({**SMALL, "inputs": inputs}).dataset_name == "train2017+val2017+photos"
    assert ShardConfig.parse({**SMALL, "inputs": inputs, "name": "mine"}).dataset_name == "mine"


def open_lines(folder, name):
    return (folder / f"out/{name}.jsonl").read_text().splitlines()


def test_the_command_takes_several_inputs_and_adds_up(pictures, tmp_path):
    root = pictures(3)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/bad.jpg").write_bytes(b"")
    (tmp_path / "more/worse.jpg").write_bytes(b"no image")
    shutil.copy(root / "part-0/picture 0000.JPEG", tmp_path / "more/again.jpg")
    words = ["shard", "coco", "folder:pictures", "folder:more", "out", "--dedupe", "--max-bad", "2"]
    done = run_hvc(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "6 found = 3 samples + 2 rejected + 1 duplicates" in lines
    assert "rejected, all listed in rejects.jsonl:" in lines
    assert {"  1 x empty file", "  bad.jpg (input 1): empty file"} <= set(lines)
    lists = [json.loads(line) for name in ("rejects", "duplicates") for line in open_lines(tmp_path, name)]
    assert [(one["path"], one["input"]) for one in lists] == [
        ("bad.jpg", 1),
        ("worse.jpg", 1),
        ("again.jpg", 1),
    ]
    assert (lists[2]["same_as"], lists[2]["same_as_input"]) == ("part-0/picture 0000.JPEG", 0)
    assert verify(str(tmp_path / "out")).ok


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folder", "photos"], "give one input or more and then the output"),
        (["folder", "coco:", "out"], r"INPUT is empty \(in 'coco:'\)"),
        (["folder", "photos", "out", "--with", "boxes"], "there is no 'boxes'"),
        (["folder", "photos", "out", "--max-bad", "some"], "give a count"),
        (["folder", "photos", "out", "--max-bad", "-1"], r"not negative \(got -1\)"),
        (["folder", "photos", "out", "--fps", "2"], "hvc shard: fps and stride are for video files"),
        (["folder", "photos", "out", "--part", "1"], "parts are counted from 0 to 0"),
        (["folder", "photos", " "], "output: .*is empty"),
    ],
)
def test_wrong_use_is_explained(tmp_path, words, message):
    done = run_hvc("shard", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
