"""`hvc inspect`: what it says of a dataset is what is in it."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from running import hvc_json, run_hvc
from small_dataset import make_small_dataset, picture, resealed

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Provenance, never
from hvc.base.storage import open_store
from hvc.data_prep.contact_sheet import COLUMNS, contact_sheet
from hvc.data_prep.groups import parse_groups
from hvc.data_prep.manifest import read_manifest
from hvc.data_prep.overview import evenly, overview, size_histogram
from hvc.data_prep.overview_text import frame_lines, in_bytes, overview_lines
from hvc.data_prep.peek import peek
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.video_frames import video_frames


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Seven single images of several kinds, one of them bad, and two videos."""
    photos, videos = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("videos")
    for number, size in enumerate([(40, 30), (30, 40), (30, 30), (60, 20)]):
        (photos / f"{number}.jpg").write_bytes(picture(number, size=size))
    (photos / "flat.png").write_bytes(picture(9, "PNG"))
    (photos / "bad.jpg").write_bytes(b"")
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(picture(20))).convert("L").save(buffer, "JPEG", exif=exif)
    (photos / "grey.jpg").write_bytes(buffer.getvalue())
    for name, count in (("cat", 3), ("dog", 5)):
        (videos / name).mkdir()
        for frame in range(count):
            (videos / name / f"{frame:05d}.jpg").write_bytes(picture(1000 + frame + ord(name[0])))
    out = tmp_path_factory.mktemp("made") / "out"
    inputs = [
        {"source": "folder", "address": str(photos)},
        {"source": "frames", "address": str(videos)},
    ]
    config = {"inputs": inputs, "output": str(out), "min_shards": 3, "max_bad": 1, "workers": 1}
    run(ShardConfig.parse({**config, "name": "zoo"}), never, Provenance())
    return out


def test_what_it_counts(dataset):
    seen = overview(str(dataset))
    assert (seen.name, seen.digest) == ("zoo", read_manifest(open_store(dataset)).digest)
    assert (seen.found, seen.samples, seen.rejected, seen.duplicates) == (15, 14, 1, 0)
    assert (seen.shards, seen.looked_at, seen.videos) == (3, 14, 2)
    assert (seen.frames_per_video.smallest, seen.frames_per_video.largest) == (3, 5)
    assert seen.formats == {"jpg": 13, "png": 1}
    assert seen.shapes == {"wide": 12, "tall": 1, "square": 1}
    assert (seen.grey, seen.turned) == (1, 1)
    assert (seen.width.smallest, seen.width.largest, seen.width.median) == (30, 60, 48)
    assert seen.first_rejects == ["bad.jpg (input 0): empty file"]
    assert sum(count for _, _, count in seen.histogram) == 14
    assert overview(str(dataset), every=True) == seen


def test_as_lines(dataset):
    text = "\n".join(overview_lines(overview(str(dataset))))
    assert "found       15 = 14 samples + 1 rejected + 0 duplicates" in text
    assert "videos      2; frames per video: min 3" in text
    assert "  formats   jpg 13, png 1; grey 1" in text
    assert "█" in text
    assert "  bad.jpg (input 0): empty file" in text


def test_a_contact_sheet(dataset, tmp_path):
    assert contact_sheet(str(dataset), tmp_path / "new" / "sheet.png") == 14
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    head, cells = pixels[:48], pixels[48:]
    assert head.min() < 60  # there is a title
    halves = np.array_split(cells, 2)  # two rows of thumbnails; the second is not full
    assert len({row.shape for row in halves}) == 1
    last = cells[len(cells) // 2 :, -(pixels.shape[1] // COLUMNS) :]
    assert last.std() < 1  # nothing where no sample is
    with pytest.raises(UsageError, match=r"name a .png or .jpg"):
        contact_sheet(str(dataset), tmp_path / "sheet.gif")


def test_a_contact_sheet_scales_16_bits(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.full((20, 20), 257 * 100, np.uint16)
    Image.fromarray(pixels).save(tmp_path / "in/grey\nof 16 bits.png")
    values = {
        "inputs": [{"source": "folder", "address": str(tmp_path / "in")}],
        "output": str(tmp_path / "o"),
    }
    run(ShardConfig.parse(values), never, Provenance())
    contact_sheet(str(tmp_path / "o"), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 16)}
    assert (100, 100, 100) in colours


def test_where_a_video_lies(dataset):
    frames = video_frames(str(dataset), "dog")
    assert [frame.frame for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.path for frame in frames] == [f"dog/{number:05d}.jpg" for number in range(5)]
    store = open_store(dataset)
    manifest = read_manifest(store)
    for frame in frames:
        [sample] = peek(store, manifest, [frame.sample])
        assert (sample.shard, sample.position, sample.key) == (frame.shard, frame.position, frame.key)
        assert json.loads(sample.members["json"])["path"] == frame.path
    assert len(list(frame_lines(frames))) == 6
    with pytest.raises(HvcError, match="no video 'dogs' among 2; there is dog"):
        video_frames(str(dataset), "dogs")


def test_the_command(dataset, tmp_path):
    done = run_hvc("inspect", str(dataset), "--picture", "sheet.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "14 samples" in done.stdout
    assert (tmp_path / "sheet.png").exists()
    values = hvc_json("inspect", str(dataset), "--json", cwd=tmp_path)
    assert values["made"]["sources"] == ["folder", "frames"]
    frames = hvc_json("inspect", str(dataset), "--video", "cat", "--json", cwd=tmp_path)["frames"]
    assert [frame["frame"] for frame in frames] == [0, 1, 2]


def test_damage_is_named(tmp_path):
    small = make_small_dataset(tmp_path / "small")
    path = small.folder / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[data.index(small.images[5]) + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(HvcError, match=r"shard-000001.tar: 000000005.jpg is damaged"):
        overview(str(small.folder))
    (small.folder / "groups.jsonl").write_text('["one", 5]\n["two", 0]\n')
    resealed(small.folder)
    with pytest.raises(HvcError, match=r"groups.jsonl: line 2 is not"):
        video_frames(str(small.folder), "one")


@pytest.mark.services
def test_few_reads_on_s3(s3_env, dataset, tmp_path):
    address = s3_env.bucket("inspect")
    store = open_store(address)
    for path in dataset.iterdir():
        store.write(path.name, path.read_bytes())
    assert overview(address).values() == {**overview(str(dataset)).values(), "dataset": address}
    assert contact_sheet(address, tmp_path / "sheet.png") == 14


class Manifested:
    """As much of a manifest as `evenly` looks at."""

    def __init__(self, sizes):
        self.shards = [type("Shard", (), {"samples": size}) for size in sizes]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 100), st.integers(1, 30))
def test_samples_are_taken_evenly(sizes, count, shards):
    numbers = evenly(Manifested(sizes), count, shards)
    assert numbers == sorted(set(numbers))
    assert 0 <= numbers[0] <= numbers[-1] < sum(sizes)
    starts = np.cumsum([0, *sizes])
    touched = set(np.searchsorted(starts, numbers, "right").tolist())
    assert len(touched) <= min(shards, count)
    if count >= sum(sizes) and shards >= len(sizes):
        assert numbers == list(range(sum(sizes)))
    else:
        assert len(numbers) <= count


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=100))
def test_every_size_is_in_the_histogram(sizes):
    bins = size_histogram(sizes)
    assert sum(count for _, _, count in bins) == len(sizes)
    assert all(high == pytest.approx(1.5 * low) for low, high, _ in bins)


def test_sizes_for_people():
    shown = [in_bytes(size) for size in (0, 999, 1000, 75_494, 12_900_000, 1.4e12, 2.5e16)]
    assert shown == ["0 B", "999 B", "1 kB", "75.5 kB", "12.9 MB", "1.4 TB", "25,000 TB"]


@pytest.mark.parametrize(
    "line", ["5", "[]", '["a", 0]', '["a", true]', '["a", 1, 2]', "[1, 1]", "{", "[" * 9999]
)
def test_lines_that_are_no_runs(line):
    with pytest.raises(HvcError, match="here: line 2 is not"):
        list(parse_groups(f"[null, 3]\n{line}\n".encode(), "here"))
