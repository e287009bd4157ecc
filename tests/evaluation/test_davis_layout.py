"""DAVIS 2016, 2017 and test-dev as downloaded, complete and broken."""

import numpy as np
import pytest
from evaluation_layouts import davis2016, davis2017, put_list
from PIL import Image

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.checks import check_sequences
from hvc.evaluation.layouts.davis import (
    TEST_DEV_2017,
    VAL_2016,
    VAL_2017,
    davis2016_names,
    davis2017_names,
    read_davis2016,
    read_davis2016_merged,
    read_davis2017,
    read_test_dev,
)
from hvc.evaluation.layouts.masks import palette, write_mask
from hvc.evaluation.metrics.davis import MaskScorer
from hvc.evaluation.propagation.features import PixelExtractor
from hvc.evaluation.propagation.presets import PRESETS
from hvc.evaluation.propagation.video import copy_first, propagate


def names(sequences):
    return [sequence.name for sequence in sequences]


def test_without_a_list_2016_gives_what_is_there(tmp_path):
    sequences = read_davis2016(davis2016(tmp_path, "swan", "bear"))
    assert names(sequences) == ["bear", "swan"]
    assert davis2016_names(tmp_path) == VAL_2016  # what a score of the benchmark is over
    bear = sequences[0]
    assert bear.single_object
    assert bear.annotated
    assert [path.name for path in bear.frames] == [f"{index:05d}.jpg" for index in range(4)]
    assert bear.masks == {0: bear.annotations[0]}
    assert set(np.unique(bear.read_mask(bear.masks[0]))) == {0, 1}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "480p",
            [
                *2 * ["/JPEGImages/480p/swan/00000.jpg /Annotations/480p/swan/00000.png"],
                "/JPEGImages/480p/gone/00000.jpg /Annotations/480p/gone/00000.png",
            ],
        ),
        ("2016", ["swan", "gone", ""]),
    ],
)
def test_2016_keeps_to_the_validation_list(tmp_path, caplog, name, lines):
    root = davis2016(tmp_path, "swan", "bear")
    listed = put_list(root / "ImageSets" / name / "val.txt", *lines)
    assert names(read_davis2016(root)) == ["swan"]
    assert "lacks 1 of 2 sequences: gone" in caplog.text
    assert names(read_davis2016(root, ["bear", "swan", "bear"])) == ["bear", "swan"]
    listed.write_text("gone\n")
    with pytest.raises(HvcError, match=r"holds no sequence of the benchmark.s list \(gone\); it has: bear"):
        read_davis2016(root)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(HvcError, match=r"is not a DAVIS folder: expected .*JPEGImages/480p$"):
        read_davis2016(tmp_path)
    root = davis2016(tmp_path, "swan")
    with pytest.raises(HvcError, match="has no sequence goose; it has: swan"):
        read_davis2016(root, ["goose"])
    (root / "JPEGImages" / "480p" / "swan" / "00003.jpg").unlink()
    with pytest.raises(HvcError, match=r"swan/00003.png has no frame: expected .*swan/00003.jpg"):
        read_davis2016(root)
    (root / "Annotations" / "480p" / "swan" / "00003.png").unlink()
    (root / "Annotations" / "480p" / "swan" / "00001.png").unlink()
    with pytest.raises(HvcError, match=r"no annotation .*swan/00001.png"):
        read_davis2016(root)
    for path in (root / "JPEGImages" / "480p" / "swan").iterdir():
        path.unlink()
    with pytest.raises(HvcError, match="swan holds no frames"):
        read_davis2016(root)


def test_2017_is_several_objects_and_merged_is_its_sequences_of_2016(tmp_path):
    root = davis2017(tmp_path, "bike-packing", "blackswan", "bear")
    put_list(root / "ImageSets" / "2017" / "val.txt", "bike-packing", "blackswan")
    put_list(root / "ImageSets" / "2016" / "val.txt", "blackswan")
    both = read_davis2017(root)
    assert names(both) == ["bike-packing", "blackswan"] == davis2017_names(root)
    put_list(root / "ImageSets" / "2017" / "val.txt", "bike-packing", "blackswan", "gone")
    # what is not there counts, so that a score over two is known as one of a subset
    assert davis2017_names(root) == ["bike-packing", "blackswan", "gone"]
    assert not both[0].single_object
    assert set(np.unique(both[0].read_mask(both[0].masks[0]))) == {0, 1, 2}
    (merged,) = read_davis2016_merged(root)
    assert merged.name == "blackswan"
    assert merged.single_object
    # what is propagated are the objects, not what they are merged to
    assert set(np.unique(np.asarray(Image.open(merged.masks[0])))) == {0, 1, 2}


def test_a_palette_mask_of_255_shows_the_one_object(tmp_path):
    root = davis2016(tmp_path, "swan")
    grey = [np.asarray(Image.open(path)) for path in sorted((root / "Annotations/480p/swan").iterdir())]
    for index, mask in enumerate(grey):
        image = Image.fromarray(mask, mode="P")
        image.putpalette(palette().tobytes())
        image.save(root / f"Annotations/480p/swan/{index:05d}.png")
    (swan,) = read_davis2016(root)
    check_sequences([swan])
    for frame in (next(propagate(swan, PixelExtractor(), PRESETS["crw"])), next(copy_first(swan))):
        np.testing.assert_array_equal(frame.labels, grey[0] // 255)
    for index, mask in enumerate(grey):
        write_mask(tmp_path / f"results/swan/{index:05d}.png", mask // 255)
    scorer = MaskScorer(merged=True)
    assert scorer.summarise({"swan": scorer.score(swan, tmp_path / "results")}).scores["jf_mean"] == 100


def test_without_its_lists_2017_keeps_to_the_official_ones(tmp_path):
    root = davis2017(tmp_path, "bike-packing", "blackswan", "bear")
    assert names(read_davis2017(root)) == ["bike-packing", "blackswan"]
    assert names(read_davis2016_merged(root)) == ["blackswan"]
    assert (len(VAL_2016), len(VAL_2017), len(TEST_DEV_2017)) == (20, 30, 30)
    assert set(VAL_2016) < set(VAL_2017)
    assert not set(VAL_2017) & set(TEST_DEV_2017)


def test_test_dev_has_first_masks_only(tmp_path):
    root = davis2017(tmp_path, "aerobatics", "lock", annotated=1)
    put_list(root / "ImageSets" / "2017" / "test-dev.txt", "aerobatics", "lock")
    first, _ = read_test_dev(root)
    assert not first.annotated
    assert list(first.masks) == [0]
    with pytest.raises(HvcError, match="holds no sequence of the benchmark's list"):
        read_davis2017(root)
    (root / "Annotations" / "480p" / "lock" / "00000.png").unlink()
    with pytest.raises(HvcError, match=r"sequence lock: expected its first mask at .*lock/00000.png"):
        read_test_dev(root)


def test_one_years_masks_are_not_taken_for_the_others(tmp_path):
    old, new = davis2016(tmp_path / "old", "blackswan"), davis2017(tmp_path / "new", "blackswan")
    with pytest.raises(HvcError, match=r"00000.png numbers its objects, as DAVIS 2017 .* davis2016-merged"):
        read_davis2016(new)
    for read in (read_davis2017, read_davis2016_merged):
        with pytest.raises(HvcError, match=r"00000.png is a mask of 0 and 255.* Take davis2016"):
            read(old)


@pytest.mark.parametrize("higher", ["Full-Resolution", "1080p"])
def test_full_resolution_is_not_480p(tmp_path, higher):
    root = davis2017(tmp_path, "blackswan")
    (root / "JPEGImages" / "480p").rename(root / "JPEGImages" / higher)
    with pytest.raises(HvcError, match=rf"there is .*JPEGImages/{higher}: .*480p.*trainval-480p.zip"):
        read_davis2017(root)


def test_a_folder_too_high_or_too_low(tmp_path):
    root = davis2017(tmp_path / "data" / "DAVIS", "blackswan")
    with pytest.raises(HvcError, match=f"one folder too high, take {root}$"):
        read_davis2017(tmp_path / "data")
    with pytest.raises(HvcError, match=f"one folder too high, take {root}$"):
        read_davis2017(tmp_path)
    for inside in ("JPEGImages", "JPEGImages/480p", "JPEGImages/480p/blackswan"):
        with pytest.raises(HvcError, match=f"one folder too low, take {root}$"):
            read_davis2017(root / inside)
    with pytest.raises(HvcError, match="no such folder"):
        read_davis2017(tmp_path / "nowhere")


@pytest.mark.shared
def test_the_real_davis(shared):
    sequences = read_davis2016(shared / "data" / "davis2016")
    lengths = {sequence.name: len(sequence.frames) for sequence in sequences}
    assert lengths == {"blackswan": 50, "car-shadow": 40, "libby": 49, "scooter-black": 43}
    masks = [sequences[1].read_mask(path) for path in sequences[1].annotations if path is not None]
    assert {mask.shape for mask in masks} == {(480, 854)}
    assert set(np.unique(masks)) == {0, 1}
    with pytest.raises(HvcError, match="is a mask of 0 and 255"):
        read_davis2016_merged(shared / "data" / "davis2016")
