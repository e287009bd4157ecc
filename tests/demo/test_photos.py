"""Tiles are real crops of photographs that lie on this disk, and always the same ones."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hvc.base.errors import HvcError
from hvc.demo.photos import HELD_OUT, TRAINING, Photo, collect_photos, open_photo, plan_tiles, split_count


def test_collect_writes_the_asked_number_of_readable_tiles(tmp_path: Path) -> None:
    assert collect_photos(tmp_path, side=96, count=50) == 50
    files = sorted(tmp_path.iterdir())
    assert len(files) == 50
    for path in files:
        with Image.open(path) as tile:
            tile.load()
            assert tile.format == "JPEG"
            assert tile.mode == "RGB"
            assert 32 <= min(tile.size) <= max(tile.size) <= 96
    assert {path.name.rpartition("_")[0] for path in files} == {photo.name for photo in TRAINING}


def test_collect_is_deterministic(tmp_path: Path) -> None:
    digests = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        collect_photos(folder, side=64, count=30)
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()})
    assert digests[0] == digests[1]
    assert len(set(digests[0].values())) == 30  # no tile twice


def test_a_tile_is_a_crop_of_its_photo_and_not_enlarged(tmp_path: Path) -> None:
    collect_photos(tmp_path, side=4096, count=24)
    for photo in TRAINING:
        image = open_photo(photo)
        files = sorted(tmp_path.glob(f"{photo.name}_*.jpg"))
        for path, box in zip(files, plan_tiles(image.size, len(files)), strict=True):
            with Image.open(path) as tile:
                assert tile.size == (box[2] - box[0], box[3] - box[1])
                error = np.asarray(tile, float) - np.asarray(image.crop(box), float)
            assert np.abs(error).mean() < 6  # JPEG's share


def test_nothing_of_the_clip_is_trained_on() -> None:
    held_out = {(photo.package, photo.path) for photo in HELD_OUT}
    assert not held_out & {(photo.package, photo.path) for photo in TRAINING}
    for photo in HELD_OUT:
        assert open_photo(photo).mode == "RGB"


@given(
    size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    count=st.integers(0, 60),
)
def test_tiles_lie_inside_and_have_area(size: tuple[int, int], count: int) -> None:
    boxes = list(plan_tiles(size, count))
    assert len(boxes) == count
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


def test_no_tile_comes_twice() -> None:
    boxes = list(plan_tiles((512, 512), 200))
    assert len(set(boxes)) == 200
    edges = [right - left for left, _, right, _ in boxes]
    assert min(edges) < 190
    assert max(edges) > 490


def test_tiles_cover_almost_the_whole_photo() -> None:
    seen = np.zeros((427, 640), bool)
    for left, top, right, bottom in plan_tiles((640, 427), 36):
        seen[top:bottom, left:right] = True
    assert seen.mean() > 0.9


@given(count=st.integers(0, 10_000), shares=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_split_is_exact_and_fair(count: int, shares: list[int]) -> None:
    parts = split_count(count, shares)
    assert sum(parts) == count
    for part, share in zip(parts, shares, strict=True):
        assert abs(part - count * share / sum(shares)) < 1


def test_a_missing_package_is_named_with_the_command() -> None:
    with pytest.raises(HvcError, match=r"nowhere_at_all.*pip install 'hvc\[demo\]'"):
        open_photo(Photo("nowhere_at_all", "data/cat.png"))


def test_a_missing_file_is_named_with_the_command() -> None:
    with pytest.raises(HvcError, match=r"unicorn\.png is missing.*hvc\[demo\]"):
        open_photo(Photo("skimage", "data/unicorn.png"))


def test_a_file_in_the_way_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(HvcError, match=r"cannot write photos to .*out"):
        collect_photos(tmp_path / "out", count=1)


def test_reading_photos_does_not_import_their_packages() -> None:
    code = (
        "import sys; from hvc.demo.photos import HELD_OUT, open_photo; [open_photo(p) for p in HELD_OUT]; "
        "sys.exit(any(name in sys.modules for name in ('skimage', 'sklearn', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
