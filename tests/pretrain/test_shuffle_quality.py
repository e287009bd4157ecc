"""How well an order mixes, beside a uniform shuffle, and what it costs to read."""

import numpy as np
import pytest

from hvc.pretrain.data.mixing import Shuffle
from hvc.pretrain.data.order import EpochOrder
from hvc.pretrain.data.shuffle_quality import Layout, measure, measure_uniform, read_cost, report

SHARDS = [500] * 80
RUNS = np.stack([np.arange(0, 40_000, 100), np.full(400, 100)], axis=1)


def order(shuffle, batch_size=128):
    return EpochOrder(SHARDS, batch_size=batch_size, seed=0, epoch=0, shuffle=shuffle)


def test_the_manifests_own_order_does_not_mix_at_all():
    layout = Layout(SHARDS, RUNS)
    found = measure(order(None), layout)
    assert found.samples == 128
    assert found.distance == pytest.approx(1 / 40_000)
    assert found.neighbour_pairs > 8 * 16 * 15 / 2 * 0.9
    assert found.video_pairs > 3000
    assert found.entropy < 0.2


def test_single_sample_blocks_are_as_good_as_a_uniform_shuffle():
    layout = Layout(SHARDS, RUNS)
    found, uniform = measure(order(Shuffle(1, 4, 128)), layout), measure_uniform(128, layout)
    assert found.distance == pytest.approx(1 / 3, rel=0.1)
    assert uniform.distance == pytest.approx(1 / 3, rel=0.1)
    assert found.shard_pairs == pytest.approx(uniform.shard_pairs, rel=0.25)
    assert uniform.shard_pairs == pytest.approx(128 * 127 / 2 * 499 / 39_999)
    assert found.entropy == pytest.approx(uniform.entropy, rel=0.02)


def test_the_defaults_mix_a_batch_as_a_uniform_shuffle_does():
    layout = Layout(SHARDS, RUNS)
    found, uniform = measure(order(Shuffle()), layout), measure_uniform(128, layout)
    assert found.neighbour_pairs < 2
    assert found.video_pairs < 1.5 * uniform.video_pairs
    assert found.entropy > 0.98 * uniform.entropy
    # Over many batches the blocks show, and a larger window hides them better.
    wide = measure(order(Shuffle(window=8)), layout, span=16)
    narrow = measure(order(Shuffle(window=1)), layout, span=16)
    assert wide.neighbour_pairs < 0.5 * narrow.neighbour_pairs


def test_blocks_are_read_once_when_workers_share_no_stream():
    alone = read_cost(order(Shuffle(16, 4, 128)), ranks=2, workers=4)
    assert alone.read_factor == pytest.approx(1, abs=0.05)
    assert 1000 / 16 <= alone.requests < 1000 / 12
    assert 16 * 16 * 2 < alone.open_samples <= 16 * 16 * 5  # 16 streams of up to 4 blocks, and one to come
    shared = read_cost(order(Shuffle(16, 4, 8)), ranks=8, workers=4)
    assert shared.read_factor > 3
    assert shared.requests > 3 * alone.requests
    assert read_cost(order(Shuffle(1, 1, 128)), ranks=1, workers=1).requests == 1000


def test_the_report_is_for_people():
    text = "\n".join(report(order(Shuffle()), Layout(SHARDS, RUNS), ranks=2, workers=3))
    assert "uniform" in text
    assert "pairs of one video" in text
    assert "2 x 3 workers" in text


def test_a_dataset_of_one_sample_is_measured():
    layout = Layout([1])
    single = EpochOrder([1], batch_size=8, seed=0, epoch=0, shuffle=Shuffle())
    assert measure(single, layout).entropy == 1
    assert measure_uniform(8, layout).samples == 1
    assert read_cost(single, 2, 2).requests == 1000
