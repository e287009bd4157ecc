"""Curves and violins: which values are drawn where, whatever records and weights there are."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hvc.pretrain.drawing.charts import BLUE, DPI, ORANGE, RED, WIDTH
from hvc.pretrain.drawing.curves import COLLAPSED, PANELS, bad_records, curves, grouped, values_of
from hvc.pretrain.drawing.violins import MOST_WEIGHTS, sampled, trunk_convolutions, weight_violins
from hvc.pretrain.model.network import OnlineNetwork
from hvc.pretrain.model.trunk import Trunk


def mask(picture, colour: str) -> np.ndarray:
    """Where a picture has a colour, bool [height, width]."""
    return (np.asarray(picture) == tuple(bytes.fromhex(colour[1:]))).all(2)


def panel(drawn: np.ndarray, number: int) -> np.ndarray:
    """The part of a mask of `curves` that belongs to one of its six charts, axes and all."""
    row, column = divmod(number, 3)
    height, width = drawn.shape[0] // 2, drawn.shape[1] // 3
    return drawn[row * height : (row + 1) * height, column * width : (column + 1) * width]


def whole_record(step: int, **values: object) -> dict[str, object]:
    names = [line.name for one in PANELS for line in (*one.left, one.right) if line]
    return {"step": step} | dict.fromkeys(names, 0.5) | values


def test_a_falling_loss_goes_down_and_its_last_value_is_lowest():
    records = [whole_record(step, **{"train/loss": -0.1 * step}) for step in range(1, 60)]
    rows, columns = np.nonzero(panel(mask(curves(records), BLUE), 0))
    order = np.argsort(columns)
    left, right = rows[order[:20]].mean(), rows[order[-20:]].mean()
    assert right - left > 120  # pixels, downwards


def test_records_come_in_any_order():
    records = [whole_record(step, **{"train/loss": math.sin(step)}) for step in range(50)]
    mixed = random.Random(0).sample(records, len(records))
    assert np.array_equal(np.asarray(curves(records)), np.asarray(curves(mixed)))


@pytest.mark.parametrize("number", range(len(PANELS)))
def test_a_metric_that_is_missing_leaves_its_chart_empty_and_no_other(number):
    names = {line.name for line in (*PANELS[number].left, PANELS[number].right) if line}
    records = [
        {key: value for key, value in whole_record(step).items() if key not in names} for step in range(9)
    ]
    drawn = mask(curves(records), BLUE)
    for other in range(len(PANELS)):
        assert panel(drawn, other).any() == (other != number)


def test_steps_that_were_not_finite_are_marked_in_red():
    records = [whole_record(step) for step in range(100)]
    assert not panel(mask(curves(records), RED), 0).any()
    records[70]["train/non_finite_steps"] = 2.0
    _, columns = np.nonzero(panel(mask(curves(records), RED), 0))
    assert columns.size
    assert columns.max() - columns.min() <= 3
    blue = np.nonzero(panel(mask(curves(records), BLUE), 0))[1]
    place = (columns.mean() - blue.min()) / (blue.max() - blue.min())
    assert place == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize("value", [math.nan, math.inf, "NaN", "-Infinity", None])
def test_a_loss_that_is_not_finite_counts_as_bad(value):
    records = [whole_record(1), whole_record(2, **{"train/loss": value}), whole_record(3)]
    assert bad_records(records).tolist() == [False, True, False]
    assert np.isnan(values_of(records, "train/loss")).tolist() == [False, True, False]
    assert mask(curves(records), RED).any()


def test_the_alarm_line_of_collapse_stands_at_its_height():
    drawn = curves([whole_record(step, **{"train/feature_spread": 1.0}) for step in range(40)])
    line = np.nonzero(panel(mask(drawn, RED), 2).sum(1) > 40)[0].mean()
    top = np.nonzero(panel(mask(drawn, BLUE), 2).sum(1) > 40)[0].mean()  # spread 1
    bottom = top + (line - top) / (1 - COLLAPSED)
    assert 200 < bottom - top < 230  # height of the chart in pixels
    assert line > top + 190


def test_rates_and_speeds_start_at_zero():
    """Else a rate that never changes, or changes by a percent, looks as if it did something."""
    records = [whole_record(step, **{"perf/images_per_second": 100.0 + step % 2}) for step in range(40)]
    for number in (4, 5):
        rows = np.nonzero(panel(mask(curves(records), BLUE), number).sum(1) > 40)[0]
        assert rows.max() - rows.min() < 8
        assert rows.mean() < 90  # near the upper edge: the lower one is 0


@pytest.mark.parametrize(
    "records", [[], [{"step": 3}], [whole_record(7)], [{"step": 1, "train/loss": None}]]
)
def test_few_records_make_a_picture_too(records):
    assert curves(records).size == curves([whole_record(step) for step in range(5)]).size


floats = hnp.arrays(
    np.float64, st.integers(0, 300), elements=st.floats(-1e3, 1e3) | st.just(math.nan), fill=st.nothing()
)


@given(floats, st.integers(1, 50))
def test_groups_keep_order_range_and_mean(values, most):
    steps = np.arange(len(values), dtype=np.float64)
    x, mean, low, high = grouped(steps, values, most)
    known = values[~np.isnan(values)]
    assert len(x) == min(len(known), most)
    assert (np.diff(x) > 0).all()
    assert (low <= mean + 1e-9).all()
    assert (mean <= high + 1e-9).all()
    if len(known):
        assert (low.min(), high.max()) == (known.min(), known.max())


@pytest.mark.parametrize(("architecture", "count"), [("resnet18", 20), ("resnet34", 36), ("resnet50", 53)])
def test_convolutions_come_in_order_of_depth_whatever_the_order_of_the_file(architecture, count):
    state = Trunk(architecture).state_dict()
    mixed = dict(random.Random(1).sample(list(state.items()), len(state)))
    found = trunk_convolutions(mixed)
    assert len(found) == count
    assert next(iter(found)) == "conv1"
    assert list(found)[-1] == ("4.2.conv3" if architecture == "resnet50" else list(found)[-1])
    places = [name.split(".")[:2] for name in list(found)[1:]]
    assert places == sorted(places)
    assert list(found).index("2.0.shortcut") == list(found).index("2.1.conv1") - 1
    assert torch.equal(found["3.0.shortcut"], state["layer3.0.downsample.0.weight"])


def test_only_the_online_trunk_is_shown():
    network = OnlineNetwork("resnet18")
    state = network.state_dict()
    target = {key.replace("online_", "target_"): value for key, value in state.items()}
    assert list(trunk_convolutions(state | target)) == list(
        trunk_convolutions(network.online_encoder.state_dict())
    )


def test_large_layers_are_sampled_evenly_and_always_alike():
    weights = torch.arange(3 * MOST_WEIGHTS + 7).float().view(1, -1, 1, 1)
    taken = sampled(weights)
    assert MOST_WEIGHTS / 2 < len(taken) <= MOST_WEIGHTS
    assert len(set(np.diff(taken))) == 1
    assert np.array_equal(taken, sampled(weights))
    assert len(sampled(torch.zeros(0))) == 0


def column_of(place: int, count: int) -> int:
    """Pixel column of a violin's middle."""
    left, width = 0.055 * WIDTH * DPI, 0.935 * WIDTH * DPI
    return round(left + width * (place + 0.7) / (count + 0.4))


def test_a_wider_distribution_makes_a_higher_violin():
    generator = torch.Generator().manual_seed(0)
    state = {
        f"layer1.{block}.conv1.weight": deviation * torch.randn(64, 64, 3, 3, generator=generator)
        for block, deviation in ((0, 0.05), (1, 0.1))
    }
    drawn = mask_like(weight_violins(state))
    heights = [np.ptp(np.nonzero(drawn[:, column_of(place, 2) + 30])[0]) for place in range(2)]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.1)


def mask_like(picture) -> np.ndarray:
    """Where something bluish is drawn."""
    pixels = np.asarray(picture).astype(int)
    return pixels[..., 2] - pixels[..., 0] > 60


def test_the_left_half_is_the_beginning():
    state = {"conv1.weight": torch.randn(64, 3, 7, 7, generator=torch.Generator().manual_seed(0))}
    alone, both = (
        weight_violins(state),
        weight_violins(state, {"conv1.weight": 0.5 * state["conv1.weight"]}),
    )
    middle = column_of(0, 1)
    for picture, expected in ((alone, False), (both, True)):
        pixels = np.asarray(picture).astype(int)[60:380]
        orange = (pixels[..., 0] - pixels[..., 2]) > 60
        left, right = orange[:, : middle - 2].any(), orange[:, middle + 2 :].any()
        assert left == expected
        assert not right
    assert mask(both, ORANGE).any()  # the words that say so


@pytest.mark.parametrize("weights", [torch.zeros(8, 3, 3, 3), torch.full((8, 3, 3, 3), math.nan)])
def test_weights_without_spread_or_without_numbers_make_a_picture(weights):
    assert weight_violins({"conv1.weight": weights}).size == weight_violins({}).size
