"""Sheets of views and features: what is drawn where, in which colour."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFont
from scipy import ndimage
from training_data import pictures, write_dataset

from hvc.pretrain.data.batch import Batch, Part
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.data.order import RankBatch
from hvc.pretrain.data.stream import stream
from hvc.pretrain.drawing.charts import FAINT, PAPER, RED
from hvc.pretrain.drawing.feature_colours import feature_colours, pixel_colours
from hvc.pretrain.drawing.pictures import (
    CELL,
    POINT_COLOURS,
    RADIUS,
    SMALL_CELL,
    Point,
    far_apart,
    feature_maps,
    positive_pairs,
    why_no_pair,
)
from hvc.pretrain.drawing.sheet import CAPTION, GAP, HEAD
from hvc.pretrain.model.pairs import find_pairs
from hvc.pretrain.recipe import TrainConfig

CONFIG = TrainConfig.parse({"data": "x", "views": {"size": 64}})
DARK = (60, 60, 60)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def make_batch(*boxes: tuple[list[float], list[float]], views=None) -> Batch:
    """A batch of these boxes; its views are dark where none are given."""
    count = len(boxes)
    if views is None:
        views = torch.full((2, count, 64, 64, 3), DARK[0], dtype=torch.uint8)
    pairs = np.array(boxes, np.float32).transpose(1, 0, 2).copy()
    part = Part(views, pairs, None, [], np.zeros(6, np.int64), None)
    return Batch(RankBatch(0, 0, np.arange(count), 1.0), (part,), 64, 0.0)


def cell(sheet: np.ndarray, column: int, row: int = 0, side: int = CELL) -> np.ndarray:
    """Pixels of one cell, uint8 [side, side, 3]."""
    left = GAP + column * (side + GAP)
    top = HEAD + row * (CAPTION + side + GAP) + CAPTION
    return sheet[top : top + side, left : left + side]


def discs(view: np.ndarray) -> dict[str, tuple[float, float]]:
    """Colour -> centre as shares of the side, of all numbered discs in a view."""
    found = {}
    for colour in POINT_COLOURS:
        labels, count = ndimage.label((view == rgb(colour)).all(2))
        sizes = ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
        if count and sizes.max() > 60:  # a small white dot has fewer
            rows, columns = np.nonzero(labels == 1 + sizes.argmax())
            middle = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
            found[colour] = middle[0] / CELL, middle[1] / CELL
    return found


def in_image(place: tuple[float, float], box: list[float]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return np.array([x0 + place[0] * (x1 - x0), y0 + place[1] * (y1 - y0)])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]),
        ([0.0, 0.0, 0.8, 0.8], [0.2, 0.2, 1.0, 1.0]),
        ([0.1, 0.2, 0.9, 0.7], [0.8, 0.3, 0.3, 0.8]),  # the second one mirrored
    ],
)
def test_a_colour_is_the_same_point_of_the_image_in_both_views(first, second):
    config = TrainConfig.parse({"data": "x", "views": {"size": 64}, "loss": {"radius": 0.3}})
    sheet = np.asarray(positive_pairs(make_batch((first, second)), config))
    one, two = discs(cell(sheet, 1)), discs(cell(sheet, 2))
    assert one.keys() == two.keys()
    assert len(one) >= 2
    bin_diagonal = np.hypot(1, 1) / 8 if first != second else 0.0
    for colour, place in one.items():
        apart = np.abs(in_image(place, first) - in_image(two[colour], second)).max()
        assert apart < config.loss.radius * bin_diagonal + 3 / CELL
    assert len({(round(x, 2), round(y, 2)) for x, y in one.values()}) == len(one)


def test_views_without_a_positive_pair_have_no_points_and_red_words():
    boxes = ([0.0, 0.0, 0.3, 0.3], [0.6, 0.6, 1.0, 1.0])
    assert find_pairs((torch.tensor([boxes[0]]), torch.tensor([boxes[1]])), 8, 8).counts.sum() == 0
    sheet = np.asarray(positive_pairs(make_batch(boxes), CONFIG))
    for column in (1, 2):
        assert (cell(sheet, column) == DARK).all()
    words = sheet[HEAD : HEAD + CAPTION, GAP : GAP + CELL]
    assert (words == rgb(RED)).all(2).any()
    whole = np.asarray(positive_pairs(make_batch(([0, 0, 1, 1], [0, 0, 1, 1])), CONFIG))
    assert not (whole[HEAD : HEAD + CAPTION, GAP : GAP + CELL] == rgb(RED)).all(2).any()


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ([0.0, 0.0, 0.3, 0.3], [0.6, 0.0, 1.0, 0.3], "no overlap"),
        ([0.0, 0.0, 0.3, 0.3], [0.3, 0.6, 0.0, 1.0], "no overlap"),  # below, and mirrored
        ([0.3, 0.0, 0.0, 0.3], [0.3, 0.0, 0.6, 0.3], "no overlap"),  # they touch
        ([0.0, 0.0, 1.0, 1.0], [0.12, 0.12, 0.13, 0.13], "centres too far apart"),  # at a corner of bins
    ],
)
def test_a_view_without_a_positive_pair_says_why(first, second, reason):
    pairs = find_pairs((torch.tensor([first]), torch.tensor([second])), 8, 8)
    assert pairs.counts.sum() == 0
    words = why_no_pair(tuple(first), tuple(second))
    assert words == f"no positive pair: {reason}"
    assert ImageFont.load_default(14).getlength(words) <= CELL, "it ends before the next view's words"


def test_crops_lie_in_their_places_and_a_mirrored_one_is_turned_back():
    views = torch.zeros(2, 1, 64, 64, 3, dtype=torch.uint8)
    views[0, ..., 0] = 255  # view 1: red; view 2: left half green, right half blue, and mirrored
    views[1, :, :, :32, 1] = 255
    views[1, :, :, 32:, 2] = 255
    batch = make_batch(([0.0, 0.0, 0.5, 0.5], [1.0, 0.5, 0.5, 1.0]), views=views)
    overview = cell(np.asarray(positive_pairs(batch, CONFIG)), 0)
    quarter = CELL // 4
    assert tuple(overview[quarter, quarter]) == (255, 0, 0)
    assert tuple(overview[3 * quarter, 5 * CELL // 8]) == (0, 0, 255)
    assert tuple(overview[3 * quarter, 7 * CELL // 8]) == (0, 255, 0)
    assert tuple(overview[quarter, 3 * quarter]) == rgb(FAINT)


def test_many_pairs_and_crops_of_one_pixel_are_drawn():
    config = TrainConfig.parse({"data": "x", "views": {"size": 64}, "loss": {"radius": 3.0}})
    whole, point = [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]
    sheet = positive_pairs(make_batch((whole, whole), (point, point), (whole, point)), config)
    assert sheet.size == (GAP + 3 * (CELL + GAP), HEAD + 3 * (CAPTION + CELL + GAP))
    assert len(discs(cell(np.asarray(sheet), 1))) == len(POINT_COLOURS)


def test_rows_are_limited_and_drawing_changes_nothing():
    batch = make_batch(*[([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.9, 0.9])] * 6)
    before = batch.views[0].clone()
    once, again = (np.asarray(positive_pairs(batch, CONFIG, rows=2)) for _ in range(2))
    assert once.shape[0] == HEAD + 2 * (CAPTION + CELL + GAP)
    np.testing.assert_array_equal(once, again)
    assert torch.equal(batch.views[0], before)


@pytest.mark.parametrize("workers", [0, 2])
def test_views_that_are_cut_later_look_as_those_of_the_batch(tmp_path, workers):
    write_dataset(tmp_path / "set", pictures(12), 6)
    recipe = {"data": str(tmp_path / "set"), "views": {"size": 64}, "batch_size": 8, "workers": workers}
    config = TrainConfig.parse(recipe)
    data, drawn = load_data(config), []
    for cut_later in (False, True):
        options = {"rank": 0, "world_size": 1, "first_step": 0, "last_step": 1, "cut_later": cut_later}
        (batch,) = stream(config, data, **options)
        sheet = np.asarray(positive_pairs(batch, config, rows=5)).astype(int)
        whole = np.asarray(positive_pairs(batch, config, rows=8))
        assert np.array_equal(sheet, whole[: len(sheet)])
        drawn.append(sheet)
    assert np.abs(drawn[0] - drawn[1]).max() <= 8  # rounding of two ways to resize


share = st.floats(0, 1)


@given(st.lists(st.tuples(share, share, share, share), max_size=40))
def test_numbered_points_never_cover_each_other(places):
    points = [Point(place[:2], place[2:]) for place in places]
    chosen = far_apart(points)
    assert (len(chosen) > 0) == (len(points) > 0)
    assert len(chosen) <= len(POINT_COLOURS)
    assert set(chosen) <= set(points)
    for number, one in enumerate(chosen):
        for other in chosen[number + 1 :]:
            for view in (0, 1):
                assert np.hypot(*np.subtract(one[view], other[view])) * CELL > 2 * RADIUS


def random_features(seed: int, channels: int) -> torch.Tensor:
    """[2, channels, 6, 6]."""
    return torch.randn(2, channels, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_a_sheet_shows_images_reference_and_features_in_their_cells():
    images = torch.zeros(2, 48, 48, 3, dtype=torch.uint8)
    images[0, ..., 0], images[1, ..., 2] = 200, 90
    features, reference = random_features(6, 16), random_features(7, 5)
    sheet = np.asarray(feature_maps(images, features, reference))
    like, _ = feature_colours(reference, pixel_colours(images, 6, 6))
    now, _ = feature_colours(features, like)
    for column in range(2):
        assert tuple(cell(sheet, column, 0, SMALL_CELL)[70, 70]) == tuple(images[column, 0, 0].tolist())
        for row, colours in ((1, like), (2, now)):
            shown = cell(sheet, column, row, SMALL_CELL)
            for y, x in ((0, 0), (3, 4), (5, 5)):
                middle = [int((place + 0.5) * SMALL_CELL / 6) for place in (y, x)]
                expected = (colours[column, y, x] * 255).round().numpy()
                np.testing.assert_allclose(shown[middle[0], middle[1]], expected, atol=1)
    two_rows = np.asarray(feature_maps(images, features))
    assert two_rows.shape[0] == HEAD + 2 * (CAPTION + SMALL_CELL + GAP)
    assert (sheet[0, 0] == rgb(PAPER)).all()


def test_no_images_make_an_empty_sheet():
    sheet = feature_maps(torch.zeros(0, 32, 32, 3, dtype=torch.uint8), torch.zeros(0, 8, 4, 4))
    assert sheet.height == HEAD + 2 * (CAPTION + SMALL_CELL + GAP)
