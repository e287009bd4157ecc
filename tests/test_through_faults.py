"""From images to batches over a network that fails: nothing lost, nothing doubled, nothing altered."""

import os
import threading

import numpy as np
import pytest
from training_data import pictures

from hvc.base.stage import Provenance, never
from hvc.base.storage import open_store
from hvc.data_prep.shard import ShardConfig, run
from hvc.data_prep.verify import verify
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.data.stream import stream
from hvc.pretrain.recipe import TrainConfig

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.soak]

SOAK = "HVC_SOAK" in os.environ
COUNT = 1200 if SOAK else 240
OUTAGE = 20.0 if SOAK else 2.0


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, data in enumerate(pictures(COUNT)):
        (folder / f"{number:05d}.jpg").write_bytes(data)
    return folder


def shard(images, output):
    values = {
        "inputs": [{"source": "folder", "address": str(images)}],
        "output": str(output),
        "min_shards": 12,
        "workers": 2,
    }
    run(ShardConfig.parse(values), never, Provenance())


def contents(address):
    store = open_store(address)
    return {name: store.read(name) for name in store.names()}


def epoch(address, on_batch=lambda number: None, **options):
    """Per step: sample numbers, and all pixels and boxes of both views."""
    values = {
        "data": str(address),
        "batch_size": 16,
        "views": {"size": 32},
        "workers": 0,
        # read as late as possible, so that faults fall all over the epoch
        "stream": {"prefetch": 1, "window": 1, "streams": 4, **options},
    }
    config = TrainConfig.parse(values)
    data = load_data(config)
    steps = -(-COUNT // config.batch_size)
    found = []
    for batch in stream(config, data, rank=0, world_size=1, first_step=0, last_step=steps):
        on_batch(len(found))
        found.append((batch.plan.samples.tolist(), *map(np.asarray, (*batch.views, *batch.boxes))))
    return found


def faults(proxy):
    return sum(proxy.counts[kind] for kind in proxy.kinds)


def test_sharding_to_s3_through_faults_gives_the_same_bytes(images, tmp_path, s3_env, faulty_s3):
    shard(images, tmp_path / "local")
    address = s3_env.bucket("faulty") + "/set"
    proxy = faulty_s3(0.2, 3)
    outage = threading.Timer(1.0, lambda: proxy.outage(OUTAGE))
    outage.start()
    shard(images, address)
    outage.cancel()
    assert faults(proxy) > 5
    proxy.share = 0
    assert contents(address) == contents(tmp_path / "local")
    assert verify(address).ok


def test_an_epoch_through_faults_and_an_outage_is_the_same_epoch(images, tmp_path, s3_env, faulty_s3):
    shard(images, tmp_path / "local")
    address = s3_env.bucket("epoch") + "/set"
    shard(images, address)
    expected = epoch(tmp_path / "local")
    proxy = faulty_s3(0.05, 11)
    proxy.counts.clear()
    middle = len(expected) // 2
    found = epoch(
        address, lambda number: proxy.outage(OUTAGE) if number == middle else None, fetch_threads=2
    )
    assert proxy.counts["outage"] > 0
    assert faults(proxy) > 0
    assert sorted(sample for step in found for sample in step[0]) == list(range(COUNT))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[0] == theirs[0]
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_array_equal(a, b)
