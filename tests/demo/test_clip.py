"""The clip's masks are exactly what was pasted, and keeping the first mask is not good enough."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from hvc.base.errors import HvcError
from hvc.demo.clip import ACTORS, background, compose, make_clip
from hvc.demo.cutouts import cut, smooth

SIZE = (320, 180)
TIMES = [k / 19 for k in range(20)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    make_clip(folder)
    return folder


def masks_of(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((folder / "masks").iterdir())])


def test_layout(clip: Path) -> None:
    assert [p.name for p in sorted((clip / "frames").iterdir())] == [f"{k:05d}.jpg" for k in range(20)]
    assert [p.name for p in sorted((clip / "masks").iterdir())] == [f"{k:05d}.png" for k in range(20)]
    with (
        Image.open(clip / "frames" / "00000.jpg") as frame,
        Image.open(clip / "masks" / "00000.png") as mask,
    ):
        assert (frame.size, frame.mode) == (SIZE, "RGB")
        assert (mask.size, mask.mode) == (SIZE, "P")
        assert mask.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def test_every_object_is_visible_in_every_frame(clip: Path) -> None:
    for ids in masks_of(clip):
        counts = np.bincount(ids.ravel(), minlength=4)
        assert len(counts) == 4  # background and three objects, no other id
        assert counts.min() > 500


def test_making_it_again_gives_the_same_files(clip: Path, tmp_path: Path) -> None:
    make_clip(tmp_path)
    for path in (*clip.glob("frames/*"), *clip.glob("masks/*")):
        again = tmp_path / path.relative_to(clip)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()


def test_written_masks_are_the_composed_ids(clip: Path) -> None:
    for ids, t in zip(masks_of(clip), TIMES, strict=True):
        np.testing.assert_array_equal(ids, compose(t, SIZE)[1])


@pytest.mark.parametrize("t", [0.0, 0.4, 0.65, 1.0])
def test_masks_are_the_pasted_pixels(t: float) -> None:
    picture, ids = compose(t, SIZE)
    empty = background(t, SIZE)
    outside = ~binary_dilation(ids > 0, iterations=3)
    np.testing.assert_array_equal(picture[outside], empty[outside])
    for number, actor in enumerate(ACTORS, start=1):
        inside = binary_erosion(ids == number, iterations=4)
        pixels, _ = cut(actor.cutout, actor.pose(t), SIZE)
        assert inside.any()
        np.testing.assert_allclose(picture[inside], pixels[inside], atol=1)


def test_the_cup_hides_a_part_of_the_flower() -> None:
    hidden = []
    for t in TIMES:
        _, alpha = cut(ACTORS[1].cutout, ACTORS[1].pose(t), SIZE)
        hidden.append(1 - (compose(t, SIZE)[1] == 2).sum() / (alpha >= 0.5).sum())
    assert hidden[0] == 0
    assert 0.3 < max(hidden) < 0.8
    assert hidden[-1] < 0.1


def test_keeping_the_first_mask_fails(clip: Path) -> None:
    masks = masks_of(clip)
    for number in (1, 2, 3):
        first, later = masks[0] == number, masks[1:-1] == number
        overlap = (first & later).sum((1, 2)) / (first | later).sum((1, 2))
        assert overlap.mean() < 0.5


def test_objects_move_smoothly(clip: Path) -> None:
    masks = masks_of(clip)
    for number in (1, 2, 3):
        now, soon = masks[:-1] == number, masks[1:] == number
        overlap = (now & soon).sum((1, 2)) / (now | soon).sum((1, 2))
        assert overlap.min() > 0.6


def test_other_lengths_and_sizes(tmp_path: Path) -> None:
    make_clip(tmp_path, frames=3, size=(160, 90))
    masks = masks_of(tmp_path)
    assert masks.shape == (3, 90, 160)
    assert set(np.unique(masks)) == {0, 1, 2, 3}
    make_clip(tmp_path / "one", frames=1, size=(160, 90))
    np.testing.assert_array_equal(masks_of(tmp_path / "one")[0], masks[0])


def test_a_file_in_the_way_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("in the way")
    with pytest.raises(HvcError, match="cannot write the clip"):
        make_clip(tmp_path)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=3, max_size=9), st.integers(1, 9))
def test_curve_goes_through_its_points(points: list[tuple[float, float]], steps: int) -> None:
    curve = smooth(tuple(points), steps)
    assert curve.shape == (len(points) * steps, 2)
    np.testing.assert_allclose(curve[::steps], points, atol=1e-9)
