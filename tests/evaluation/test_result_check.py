"""Results of any method are held to the form that servers and toolkits read."""

import shutil
import zipfile
import zlib

import numpy as np
import pytest
from evaluation_layouts import davis2016, davis2017, jhmdb, put_frame, vip, youtube_vos
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.layouts.joint_files import TrackedJoints, write_tracked
from hvc.evaluation.layouts.masks import write_mask
from hvc.evaluation.layouts.result_check import check_results
from hvc.evaluation.layouts.submission import package_results
from hvc.evaluation.propagation.joints import write_joints
from hvc.evaluation.propagation.video import copy_first


def write_labels(folder, sequences):
    """What the first masks say of every frame that is a result."""
    for sequence in sequences:
        for frame in copy_first(sequence):
            if frame.labels is not None:
                write_mask(
                    folder / sequence.name / f"{sequence.frames[frame.index].stem}.png", frame.labels
                )
    return folder


@pytest.fixture
def dev(tmp_path):
    sequences = BENCHMARKS["davis2017-test-dev"].read(
        davis2017(tmp_path, "aerobatics", "lock", annotated=1), None
    )
    return sequences, write_labels(tmp_path / "out" / "labels", sequences)


@pytest.fixture
def youtube(tmp_path):
    sequences = BENCHMARKS["youtube-vos-2019"].read(youtube_vos(tmp_path), None)
    return sequences, write_labels(tmp_path / "out" / "labels", sequences)


def rezip(path, change):
    """The same zip with other names; None leaves an entry out."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            if change(name) is not None:
                archive.writestr(change(name), content)
    return path


def test_test_dev_has_the_sequences_at_the_root_of_the_zip(dev):
    sequences, labels = dev
    path = BENCHMARKS["davis2017-test-dev"].package(labels, sequences)
    assert path == labels.parent / "davis2017-test-dev.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            f"{name}/{index:05d}.png" for name in ("aerobatics", "lock") for index in range(4)
        ]
        with archive.open("lock/00002.png") as file:
            assert Image.open(file).mode == "P"
    assert check_results("davis2017-test-dev", sequences, path) == 8


def test_youtube_vos_has_every_fifth_frame_below_annotations(youtube):
    sequences, labels = youtube
    write_mask(
        labels / sequences[0].name / "00003.png", np.zeros((72, 96), np.uint8)
    )  # no result: left out
    path = BENCHMARKS["youtube-vos-2019"].package(labels, sequences)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [
            f"Annotations/0a49f5265b/{stem}.png" for stem in ("00000", "00005", "00010")
        ]


def test_the_same_labels_make_the_same_zip_whenever_they_were_written(dev):
    sequences, labels = dev
    before = package_results("davis2017-test-dev", labels, sequences).read_bytes()
    for path in sorted(labels.rglob("*.png"), reverse=True):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert package_results("davis2017-test-dev", labels, sequences).read_bytes() == before
    assert [path.name for path in labels.parent.iterdir() if path.is_file()] == ["davis2017-test-dev.zip"]


def test_half_results_make_no_zip(dev):
    sequences, labels = dev
    (labels / "lock" / "00002.png").unlink()
    with pytest.raises(HvcError, match=r"expected the label map .*lock/00002.png; finish the evaluation"):
        package_results("davis2017-test-dev", labels, sequences)
    (labels / "lock" / "00002.png").write_bytes(b"half")
    with pytest.raises(HvcError, match=r"lock/00002.png: "):
        package_results("davis2017-test-dev", labels, sequences)
    assert [path.name for path in labels.parent.iterdir()] == ["labels"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "lock" / "00001.png").unlink(), r"1 files are missing: lock/00001.png"),
        (lambda f: shutil.rmtree(f / "lock"), r"4 files are missing: lock/00000.png, .*lock/00003.png$"),
        (
            lambda f: (f / "lock" / ".DS_Store").write_text(""),
            r"1 files belong to no frame: lock/.DS_Store",
        ),
        (
            lambda f: write_mask(f / "lock" / "00001.png", np.zeros((40, 50), np.uint8)),
            r"lock/00001.png is 50 x 40 pixels, but the video is 96 x 72",
        ),
        (
            lambda f: write_mask(f / "lock" / "00001.png", np.full((72, 96), 7, np.uint8)),
            r"lock/00001.png shows id 7, but lock has only ids 1, 2",
        ),
        (
            lambda f: put_frame(f / "lock" / "00001.png", np.zeros((72, 96, 3), np.uint8)),
            r"lock/00001.png: a label map must be a palette or 8-bit grey PNG of ids, this is PNG RGB",
        ),
        (
            lambda f: Image.new("L", (96, 72)).save(f / "lock" / "00001.png", format="JPEG"),
            r"lock/00001.png: a label map must be .* this is JPEG L",
        ),
        (lambda f: (f / "lock" / "00001.png").write_bytes(b"?"), r"lock/00001.png: cannot identify"),
        (
            lambda f: f.rename(f.parent / "x") and (f.parent / "x").rename(f.mkdir() or f / "x"),
            r"expected aerobatics/00000.png and so on, there is x/aerobatics/00000.png",
        ),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(dev, spoil, message):
    sequences, labels = dev
    assert check_results("davis2017-test-dev", sequences, labels) == 8
    spoil(labels)
    with pytest.raises(HvcError, match=message):
        check_results("davis2017-test-dev", sequences, labels)


def test_what_is_wrong_in_a_zip_is_named(youtube):
    sequences, labels = youtube
    path = package_results("youtube-vos-2019", labels, sequences)
    rezip(path, lambda name: name.removeprefix("Annotations/"))
    with pytest.raises(HvcError, match=r"expected Annotations/0a49.*there is 0a49f5265b/00000.png"):
        check_results("youtube-vos-2019", sequences, path)
    path = package_results("youtube-vos-2019", labels, sequences)
    rezip(path, lambda name: None if "00005" in name else name)
    with pytest.raises(HvcError, match=r"1 files are missing: Annotations/0a49f5265b/00005.png"):
        check_results("youtube-vos-2019", sequences, path)
    path.write_bytes(b"PK but no zip")
    with pytest.raises(HvcError, match="neither a folder nor a readable zip"):
        check_results("youtube-vos-2019", sequences, path)
    with pytest.raises(HvcError, match="no such folder or zip"):
        check_results("youtube-vos-2019", sequences, path.with_name("none.zip"))


def test_a_damaged_entry_of_a_zip_is_named(youtube):
    sequences, labels = youtube
    path = package_results("youtube-vos-2019", labels, sequences)
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 10] ^= 255
    path.write_bytes(content)
    with pytest.raises(HvcError, match=r"Annotations/0a49f5265b/00000.png: Bad CRC"):
        check_results("youtube-vos-2019", sequences, path)


def test_folders_for_youtube_vos_may_have_annotations_on_top(youtube):
    sequences, labels = youtube
    assert check_results("youtube-vos-2019", sequences, labels) == 3
    shutil.copytree(labels, labels.parent / "results" / "Annotations")
    assert check_results("youtube-vos-2019", sequences, labels.parent / "results") == 3


def test_single_object_results_may_be_0_and_255(tmp_path):
    sequences = BENCHMARKS["davis2016"].read(davis2016(tmp_path / "data", "swan"), None)
    for index in range(4):
        put_frame(tmp_path / "out" / "swan" / f"{index:05d}.png", np.full((72, 96), 255, np.uint8))
    assert check_results("davis2016", sequences, tmp_path / "out") == 4
    put_frame(tmp_path / "out" / "swan" / "00002.png", np.full((72, 96), 128, np.uint8))
    with pytest.raises(HvcError, match=r"swan/00002.png shows id 128, but swan has only id 1"):
        check_results("davis2016", sequences, tmp_path / "out")


def test_parts_are_twenty_classes_whatever_the_video_shows(tmp_path):
    sequences = BENCHMARKS["vip"].read(vip(tmp_path / "data", "videos1"), None)
    labels = write_labels(tmp_path / "labels", sequences)
    path = labels / "videos1" / "000000000026.png"
    write_mask(path, np.full((72, 96), 19, np.uint8))
    assert check_results("vip", sequences, labels) == 4
    write_mask(path, np.full((72, 96), 20, np.uint8))
    with pytest.raises(HvcError, match=r"videos1/000000000026.png shows id 20"):
        check_results("vip", sequences, labels)


def test_joints_are_json_per_clip(tmp_path):
    sequences = BENCHMARKS["jhmdb"].read(jhmdb(tmp_path / "data", {"a": "catch", "b": "catch"}), None)
    path = tmp_path / "labels" / "a.json"
    with pytest.raises(HvcError, match=r"expected tracked joints \(JSON\) at .*labels/a.json"):
        check_results("jhmdb", sequences, tmp_path / "labels")
    write_joints(path, sequences[0], list(copy_first(sequences[0])))
    assert check_results("jhmdb", sequences, tmp_path / "labels") == 1
    shutil.copy(path, path.with_name("c.json"))
    with pytest.raises(HvcError, match=r"labels: 1 files belong to no clip: c.json"):
        check_results("jhmdb", sequences, tmp_path / "labels")
    assert check_results("jhmdb", sequences, tmp_path / "labels", chosen=True) == 1
    path.with_name("c.json").unlink()
    write_tracked(path, TrackedJoints(["00001", "00002"], 320, 240, np.zeros((2, 15, 2))))
    with pytest.raises(
        HvcError, match=r"(?s)the 5 frames 00001, .*not 00001, 00002.*is for 320 x 240 pixels"
    ):
        check_results("jhmdb", sequences, tmp_path / "labels")


def encrypted(content):
    """The first entry says that it has a password, in both places where a zip says so."""
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1


def undeflatable(content):
    """The first entry's data begin with a kind of block that deflate does not have."""
    content[30 + len("aerobatics/00000.png")] = 0x07


@pytest.mark.parametrize(
    ("spoil", "message"), [(encrypted, "is encrypted"), (undeflatable, "invalid block type")]
)
def test_a_zip_whose_files_cannot_be_unpacked(dev, tmp_path, spoil, message):
    sequences, labels = dev
    path = tmp_path / "results.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(labels.rglob("*.png")):
            archive.write(file, file.relative_to(labels))
    content = bytearray(path.read_bytes())
    spoil(content)
    path.write_bytes(content)
    with pytest.raises(HvcError, match=f"^aerobatics/00000.png: .*{message}"):
        check_results("davis2017-test-dev", sequences, path)


def test_a_result_that_would_fill_the_memory(dev):
    sequences, labels = dev
    path = labels / "lock" / "00001.png"
    content = bytearray(path.read_bytes())
    content[16:24] = (1 << 20).to_bytes(4, "big") * 2  # width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(HvcError, match=r"^lock/00001.png: Image size"):
        check_results("davis2017-test-dev", sequences, labels)


def test_many_problems_are_counted(dev):
    sequences, labels = dev
    for path in labels.rglob("*.png"):
        write_mask(path, np.full((72, 96), 9, np.uint8))
    for index in range(9):
        shutil.copy(path, labels / f"{index}.png")
    message = r"9 files belong to no frame: 0.png, .*, 7.png and 1 more\naerobatics/00000.png shows id 9"
    with pytest.raises(HvcError, match=message):
        check_results("davis2017-test-dev", sequences, labels)
