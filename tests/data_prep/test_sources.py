"""Inputs put together: any number of them, of any source, in one catalog that every machine finds alike."""

import os

import layout_data
import pytest

from hvc.base.errors import HvcError, UsageError
from hvc.data_prep.catalog import Record
from hvc.data_prep.source_names import EXTRAS, Source
from hvc.data_prep.sources import SOURCES, FrameOptions, build_catalog


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return str(root)


def test_the_words_of_the_command_line_are_the_sources():
    assert [str(source) for source in Source] == list(SOURCES)
    assert frozenset().union(*(layout.offers for layout in SOURCES.values())) == set(EXTRAS)


def test_several_sources_become_one_catalog(tmp_path):
    one = touch(tmp_path / "one", "n00000002/b.jpg", "n00000001/a.jpg")
    two = touch(
        tmp_path / "two", "JPEGImages/v/00001.jpg", "JPEGImages/v/00000.jpg", "JPEGImages/u/00000.jpg"
    )
    three = touch(tmp_path / "three", "cat/x.jpg", "n00000002/y.jpg")
    catalog = build_catalog(
        [("imagenet", one), ("youtube-vos", two), ("folder", three)], frozenset({"labels"})
    )
    assert [catalog.record(i) for i in range(len(catalog))] == [
        Record("n00000001/a.jpg", 5, None, "n00000001", input=0),
        Record("n00000002/b.jpg", 5, None, "n00000002", input=0),
        Record("JPEGImages/u/00000.jpg", 5, None, None, "u", 0, input=1),
        Record("JPEGImages/v/00000.jpg", 5, None, None, "v", 0, input=1),
        Record("JPEGImages/v/00001.jpg", 5, None, None, "v", 1, input=1),
        Record("cat/x.jpg", 5, None, "cat", input=2),
        Record("n00000002/y.jpg", 5, None, "n00000002", input=2),
    ]
    assert catalog.classes == ("cat", "n00000001", "n00000002")
    assert catalog.group_ids.tolist() == [-1, -1, 0, 1, 1, -1, -1]
    assert [catalog.input_of(i) for i in range(7)] == [0, 0, 1, 1, 1, 2, 2]
    assert [tree.address for tree in catalog.trees] == [one, two, three]


def test_videos_of_one_name_in_two_inputs_are_two_videos(tmp_path):
    inputs = [("frames", touch(tmp_path / name, "v/0.jpg", "v/1.jpg")) for name in ("one", "two")]
    catalog = build_catalog(inputs)
    assert catalog.group_ids.tolist() == [0, 0, 1, 1]
    assert [catalog.video_name(group) for group in (0, 1, -1)] == ["v", "v", None]


def test_the_digest_notices_names_sizes_labels_and_sources(tmp_path):
    address = touch(tmp_path / "in", "n00000001/a.jpg", "n00000002/b.jpg")

    def digest(*sources, wanted=frozenset()):
        return build_catalog([(source, address) for source in sources], wanted).digest()

    digests = {digest("folder"), digest("imagenet"), digest("folder", "folder"), digest("frames")}
    assert (
        digest("folder", wanted=frozenset({"labels"})) in digests
    )  # what the class folders say, either way
    touch(tmp_path / "in", "n00000002/c.jpg")
    digests.add(digest("folder"))
    (tmp_path / "in/n00000002/c.jpg").write_bytes(b"longer")
    digests.add(digest("folder"))
    assert len(digests) == 6
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    address = str(tmp_path / "elsewhere")
    assert digest("folder") in digests


def test_a_name_that_is_not_text_does_no_harm(tmp_path):
    catalog = build_catalog([("folder", touch(tmp_path, os.fsdecode(b"caf\xe9.jpg"), "a.jpg"))])
    assert [catalog.trees[0].read(catalog.record(i).entry) for i in range(2)] == [b"12345"] * 2
    assert len(catalog.digest()) == 64


def test_a_missing_input_is_a_usage_error_before_anything_is_listed(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match=r"input .*missing: no such folder or file"):
        build_catalog([("folder", str(tmp_path / "in")), ("folder", str(tmp_path / "missing"))])


def test_an_empty_input_is_named_also_among_others(tmp_path):
    full = touch(tmp_path / "full", "a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HvcError, match=r"no images below .*empty: looked for files ending in .*\.jpeg"):
        build_catalog([("folder", full), ("folder", str(tmp_path / "empty"))])


def test_extras_that_no_source_has_are_refused(tmp_path):
    inputs = [("coco", touch(tmp_path / "train2017", "000000000009.jpg"))]
    with pytest.raises(
        UsageError, match="coco: no masks to be had there; masks come with folder, youtube-vos"
    ):
        build_catalog(inputs, frozenset({"masks"}))
    with pytest.raises(UsageError, match="no sounds to be had"):
        build_catalog(inputs, frozenset({"sounds"}))
    with pytest.raises(UsageError, match="no source 'cocoa'; there are folder, imagenet"):
        build_catalog([("cocoa", "x")])


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    touch(tmp_path, "in/a.jpg")
    (tmp_path / "in").chmod(0)
    try:
        with pytest.raises(HvcError, match=r"cannot read the folder .*in: Permission denied"):
            build_catalog([("folder", str(tmp_path))])
    finally:
        (tmp_path / "in").chmod(0o700)


def test_a_video_wants_the_source_video(tmp_path):
    touch(tmp_path, "clip.mp4", "x.zip")
    with pytest.raises(UsageError, match=r"clip\.mp4 is a video: use the source `video`"):
        build_catalog([("folder", str(tmp_path / "clip.mp4"))])
    with pytest.raises(UsageError, match="videos are read from local files"):
        build_catalog([("video", str(tmp_path / "x.zip"))], frames=FrameOptions(fps=1))


@pytest.mark.services
def test_imagenet_as_tars_on_s3(s3_env):
    address = s3_env.bucket("imagenet")
    expected = {}
    for wnid in ("n00000001", "n00000002"):
        members = {f"{wnid}_{number}.JPEG": f"{wnid}{number}".encode() * 90 for number in range(3)}
        expected |= {f"{wnid}/{name}": content for name, content in members.items()}
        body = layout_data.tar_bytes(members)
        s3_env.client().put_object(Bucket="imagenet", Key=f"train/{wnid}.tar", Body=body)
    catalog = build_catalog([("imagenet", f"{address}/train")])
    found = [catalog.record(i) for i in range(len(catalog))]
    assert {record.path: catalog.trees[0].read(record.entry) for record in found} == expected
    assert catalog.classes == ("n00000001", "n00000002")


def test_what_a_layout_leaves_is_told(tmp_path, encode, caplog):
    for name in ("a.jpg", "b.JPG"):
        (tmp_path / name).write_bytes(encode("JPEG"))
    for name in ("c.heic", "d.heic", "e.gif", "f"):
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level("INFO", "hvc"):
        assert len(build_catalog([("folder", str(tmp_path))])) == 2
    assert f"input {tmp_path}: files that are no images of this layout: 2 .heic, 1 .gif" in caplog.text
    assert "1 without ending" in caplog.text
