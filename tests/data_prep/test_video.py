"""Video files: every frame where the decoder has it, whatever the order it is asked for in."""

import io
import pickle
import struct
import sys
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hvc.base.errors import UsageError
from hvc.data_prep.catalog import Catalog
from hvc.data_prep.sources import FrameOptions, build_catalog
from hvc.data_prep.tree import Entry
from hvc.data_prep.video_tree import VideoTree

av = pytest.importorskip("av")

REAL = ["04_coffee.mp4", "Goal_Keeping_Tips_catch_f_cm_np1_fr_med_2.avi"]


def film(path, frames=30, rate=10, codec="mpeg4", gop=8, width=64, height=48, gaps=()):
    """A video whose frame `i` is grey of level `8 * i`; frames in `gaps` are left out."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = 2
        stream.bit_rate = 4_000_000
        for i in range(frames):
            if i not in gaps:
                pixels = np.full((height, width, 3), 8 * i, np.uint8)
                pixels[: height // 2, : width // 2, 0] = 255  # the top left corner is red
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, rate)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def found(tree):
    return Catalog.build([(tree, tree.records())])


def records(tree):
    catalog = found(tree)
    return [catalog.record(i) for i in range(len(catalog))]


def picture(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def level(data):
    """Grey level of the bottom right corner, in steps of 8."""
    image = picture(data)
    return round(image.getpixel((image.width - 4, image.height - 4))[1] / 8)


def decoded(path, stride):
    """Every so manyth frame as the decoder gives it, as a Pillow image, with its time."""
    with av.open(str(path)) as container:
        frames = islice(container.decode(video=0), 0, None, stride)
        return [(frame.to_image(), frame.time) for frame in frames]


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_frames_are_the_decoder_s_own(shared, name):
    path = shared / "data/videos" / name
    tree = VideoTree(str(path), FrameOptions(stride=29))
    chosen = decoded(path, 29)
    catalog = found(tree)
    assert len(catalog) == len(chosen)
    for i, (image, time) in enumerate(chosen):
        record = catalog.record(i)
        assert record.path == f"{name}/{29 * i:08d}.jpg"
        assert (record.video, record.frame) == (name, 29 * i)
        assert record.time == pytest.approx(time - chosen[0][1])
        data = tree.read(record.entry)
        assert 0.2 < len(data) / record.size < 2  # close enough to plan the size of shards
        difference = np.abs(np.asarray(picture(data), np.int16) - np.asarray(image, np.int16))
        assert difference.mean() < 4, i
    assert (catalog.group_ids == 0).all()


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_a_frame_is_the_same_bytes_however_it_is_reached(shared, name):
    tree = VideoTree(str(shared / "data/videos" / name), FrameOptions(stride=41))
    entries = [record.entry for record in records(tree)]
    forward = [tree.read(entry) for entry in entries]
    assert len(set(forward)) == len(forward)
    backward = [tree.read(entry) for entry in entries[::-1]]
    assert backward[::-1] == forward
    alone = [pickle.loads(pickle.dumps(tree)).read(entry) for entry in entries[::3]]
    assert alone == forward[::3]
    assert tree.read(entries[0]) == tree.read(entries[0]) == forward[0]


@pytest.mark.parametrize("container", ["mp4", "avi", "mkv", "mpg"])
def test_each_frame_is_the_one_its_number_says(tmp_path, container):
    codec = "mpeg2video" if container == "mpg" else "mpeg4"
    rate = 25 if container == "mpg" else 10
    path = film(tmp_path / f"x.{container}", codec=codec, rate=rate)
    tree = VideoTree(str(path))
    listed = records(tree)
    assert [record.frame for record in listed] == list(range(30))
    assert [record.time for record in listed] == pytest.approx([i / rate for i in range(30)], abs=2e-3)
    order = [*range(30), *np.random.default_rng(0).permutation(30).tolist()]
    assert [level(tree.read(listed[i].entry)) for i in order] == order


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    gaps = {3, 4, 5, 11}
    path = film(tmp_path / "x.mp4", gaps=gaps)
    shown = [i for i in range(30) if i not in gaps]
    listed = records(VideoTree(str(path)))
    assert [round(record.time * 10) for record in listed] == shown
    assert [record.frame for record in listed] == list(range(len(shown)))
    two_a_second = records(VideoTree(str(path), FrameOptions(fps=2)))
    assert [round(record.time * 10) for record in two_a_second] == [0, 6, 10, 15, 20, 25]


def test_frames_lie_in_memory_one_at_a_time(tmp_path):
    resource = pytest.importorskip("resource")
    tree = VideoTree(str(film(tmp_path / "x.mp4", frames=31, width=1280, height=720)))
    listed = records(tree)
    tree.read(listed[0].entry)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for record in listed[1:]:
        tree.read(record.entry)
    frames_of = 1280 * 720 * 3 / 1024  # KiB of one decoded frame
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 12 * frames_of


@pytest.mark.parametrize(
    ("matrix", "size", "red"),
    [
        ((1, 0, 0, 1), (64, 48), (4, 4)),
        ((0, 1, -1, 0), (48, 64), (44, 4)),  # a quarter clockwise, as telephones held upright write it
        ((-1, 0, 0, -1), (64, 48), (60, 44)),
        ((0, -1, 1, 0), (48, 64), (4, 60)),
    ],
)
def test_a_stated_rotation_is_applied(tmp_path, matrix, size, red):
    path = film(tmp_path / "x.mp4", frames=2)
    content = path.read_bytes()
    track = content.index(b"tkhd")
    at = content.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), track)
    a, b, c, d = (number << 16 for number in matrix)
    path.write_bytes(content[:at] + struct.pack(">5i", a, b, 0, c, d) + content[at + 20 :])
    tree = VideoTree(str(path))
    image = picture(tree.read(records(tree)[1].entry))
    assert image.size == size
    corners = [(x, y) for x in (4, image.width - 4) for y in (4, image.height - 4)]
    assert max(corners, key=lambda corner: image.getpixel(corner)[0]) == red


def test_a_folder_of_videos_with_others_between(tmp_path):
    (tmp_path / "b").mkdir()
    film(tmp_path / "b/two.MP4", frames=3)
    film(tmp_path / "a.avi", frames=2)
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "._a.avi").write_text("left by macOS")
    catalog = build_catalog([("video", str(tmp_path))])
    assert [catalog.record(i).path for i in range(len(catalog))] == [
        "a.avi/00000000.jpg",
        "a.avi/00000001.jpg",
        "b/two.MP4/00000000.jpg",
        "b/two.MP4/00000001.jpg",
        "b/two.MP4/00000002.jpg",
    ]
    assert catalog.group_ids.tolist() == [0, 0, 1, 1, 1]
    assert [level(catalog.trees[0].read(catalog.record(i).entry)) for i in range(5)] == [0, 1, 0, 1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be opened as a video"),
        (b"no video at all" * 100, "cannot be opened as a video"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n", "cannot be opened as a video"),
        (b"ffconcat version 1.0\nfile good.mp4\n", "cannot be opened as a video"),
    ],
)
def test_a_file_that_is_no_video_is_one_reject(tmp_path, content, reason):
    film(tmp_path / "good.mp4", frames=2)
    (tmp_path / "bad.mp4").write_bytes(content)
    tree = VideoTree(str(tmp_path))
    bad, *good = records(tree)
    assert bad.path == "bad.mp4"
    with pytest.raises(OSError, match=reason):
        tree.read(bad.entry)
    assert [level(tree.read(record.entry)) for record in good] == [0, 1]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "stride", "at"), [(REAL[0], 47, 0.35), (REAL[1], 3, 0.6)])
def test_damage_costs_the_frames_that_need_the_damaged_bytes_only(shared, tmp_path, name, stride, at):
    path = tmp_path / name
    path.write_bytes(whole := (shared / "data/videos" / name).read_bytes())
    tree = VideoTree(str(path), FrameOptions(stride=stride))
    listed = records(tree)
    good = outcomes(tree, listed)
    start = int(at * len(whole))
    path.write_bytes(whole[:start] + b"\xff" * 20_000 + whole[start + 20_000 :])
    found = outcomes(pickle.loads(pickle.dumps(tree)), listed)
    failed = [i for i, outcome in enumerate(found) if isinstance(outcome, str)]
    assert failed
    assert all(" s" in found[i] for i in failed)
    assert sum(a == b for a, b in zip(found, good, strict=True)) >= len(listed) // 4
    # What is rejected must not depend on what was read before.
    assert [outcomes(pickle.loads(pickle.dumps(tree)), [record])[0] for record in listed] == found


def outcomes(tree, listed):
    """A frame's bytes, or why there are none."""
    results = []
    for record in listed:
        try:
            results.append(tree.read(record.entry))
        except OSError as error:
            results.append(error.strerror)
    return results


def test_a_video_that_is_cut_short_gives_what_is_there(tmp_path):
    path = film(tmp_path / "x.mkv", frames=31, gop=5)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    tree = VideoTree(str(path))
    listed = [record for record in records(tree) if record.place is not None]
    assert 5 < len(listed) < 31
    good = [result for result in outcomes(tree, listed) if isinstance(result, bytes)]
    assert [level(data) for data in good] == list(range(len(good)))
    assert len(good) >= len(listed) - 3


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("between_frames", [False, True])
def test_what_is_cut_off_is_one_reject(shared, tmp_path, name, between_frames):
    whole = shared / "data/videos" / name
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    middle = packets[len(packets) // 2]
    (tmp_path / name).write_bytes(whole.read_bytes()[: middle.pos + (0 if between_frames else 100)])
    tree = VideoTree(str(tmp_path))
    listed = records(tree)
    assert len(listed) >= len(packets) // 2
    if between_frames and name.endswith(".avi"):  # its table comes last, and is lost with the rest
        return
    assert [record.path for record in listed if record.place is None] == [name]
    with pytest.raises(OSError, match="cut short"):
        tree.read(listed[0].entry)


def test_a_frame_that_is_not_there_is_said(tmp_path):
    tree = VideoTree(str(film(tmp_path / "x.mp4", frames=3)))
    last = records(tree)[-1]
    place = last.place._replace(offset=last.place.offset + 1)
    with pytest.raises(OSError, match=r"no frame at 0\.2\d* s"):
        tree.read(Entry(last.path, 0, place))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200, unique=True).map(sorted), st.floats(0.1, 60))
def test_frames_per_second_are_a_limit(times, fps):
    chosen = FrameOptions(fps=fps).choose(times)
    slots = [int(times[i] * fps + 1e-6) for i in chosen]
    assert slots == sorted({int(time * fps + 1e-6) for time in times})  # one of each slot, none left out
    assert chosen == sorted(chosen)


@given(st.integers(0, 300), st.integers(1, 400))
def test_a_stride_takes_every_so_manyth(count, stride):
    assert (
        FrameOptions(stride=stride).choose([0.1 * i for i in range(count)]) == list(range(count))[::stride]
    )


@pytest.mark.parametrize(
    "options", [{"fps": 0}, {"fps": float("nan")}, {"stride": 0}, {"fps": 1, "stride": 2}]
)
def test_senseless_options_are_usage_errors(options):
    with pytest.raises(UsageError):
        FrameOptions(**options)


def test_without_pyav_the_way_to_get_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.mp4").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install 'hvc\[video\]'"):
        build_catalog([("video", str(tmp_path))])
