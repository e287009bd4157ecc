"""Batches: the same samples and views on any number of ranks and workers, from a folder and from S3."""

import os
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from training_data import number_of, numbered, pictures, write_dataset

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.pretrain.data import loaders
from hvc.pretrain.data.bad_samples import BadSamples, allowed
from hvc.pretrain.data.batch import Batch
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.data.decode import to_rgb
from hvc.pretrain.data.indexes import Counts
from hvc.pretrain.data.stream import buffer_need, stream, warn_of_buffer
from hvc.pretrain.recipe import TrainConfig

PICTURES = pictures(29)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Address of 29 pictures in four shards."""
    folder = tmp_path_factory.mktemp("stream") / "photos"
    write_dataset(folder, PICTURES, 8)
    return str(folder)


def config(data, **values):
    return TrainConfig.parse({"data": data, "batch_size": 8, "views": {"size": 32}, "workers": 0} | values)


def batches(recipe, rank=0, world_size=1, first_step=0, last_step=8, **options) -> list[Batch]:
    data = load_data(recipe)
    places = {"rank": rank, "world_size": world_size, "first_step": first_step, "last_step": last_step}
    return list(stream(recipe, data, **places, **options))


def samples(found: list[Batch]) -> list[int]:
    return [sample for batch in found for sample in batch.plan.samples.tolist()]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_ranks_and_workers_share_out_the_same_views(photos, workers):
    alone = batches(config(photos))
    ranks = [batches(config(photos, workers=workers), rank, 3) for rank in range(3)]
    for step, whole in enumerate(alone):
        parts = [rank[step] for rank in ranks]
        for view in (0, 1):
            assert torch.equal(torch.cat([part.views[view] for part in parts]), whole.views[view])
            assert torch.equal(torch.cat([part.boxes[view] for part in parts]), whole.boxes[view])
    assert sorted(samples(alone[:4])) == list(range(29))


@pytest.mark.parametrize("workers", [0, 3])
def test_views_cut_later_are_the_same(photos, workers):
    colour = {"brightness": 0.4, "saturation": 0.4, "grey": 0.2}
    recipe = config(photos, workers=workers, views={"size": 32, "flip": 0.5, "colour": colour})
    now, later = batches(recipe), batches(recipe, cut_later=True)
    for a, b in zip(now, later, strict=True):
        for view in (0, 1):
            difference = a.views[view].int() - b.views[view].int()
            assert int(difference.abs().max()) <= 1
            assert torch.equal(a.boxes[view], b.boxes[view])
            assert torch.equal(a.colours[view], b.colours[view])
    assert later[0].colours[0].shape == (8, 5)


def test_a_later_start_gives_the_same_batches(photos):
    whole, rest = batches(config(photos)), batches(config(photos), first_step=5)
    for a, b in zip(whole[5:], rest, strict=True):
        assert a.plan.samples.tolist() == b.plan.samples.tolist()
        assert torch.equal(a.views[1], b.views[1])


def test_epochs_and_views_differ(photos):
    recipe = config(photos, batch_size=29, shuffle=False)
    first, second = batches(recipe, last_step=2)
    assert first.plan.samples.tolist() == second.plan.samples.tolist() == list(range(29))
    assert not torch.equal(first.boxes[0], first.boxes[1])
    assert not torch.equal(first.boxes[0], second.boxes[0])


@pytest.mark.services
def test_a_folder_s3_and_s3_with_a_cache_are_the_same(photos, tmp_path, s3_env):
    remote = open_store(s3_env.bucket("stream") + "/set")
    for name, _ in open_store(photos).entries():
        remote.write(name, open_store(photos).read(name))
    local = batches(config(photos))
    for stream_options in ({}, {"cache": str(tmp_path / "cache")}, {"cache": str(tmp_path / "cache")}):
        for workers in (0, 2):
            recipe = config(remote.address, workers=workers, stream=stream_options)
            for a, b in zip(local, batches(recipe), strict=True):
                assert a.plan.samples.tolist() == b.plan.samples.tolist()
                assert torch.equal(a.views[0], b.views[0])
                assert torch.equal(a.views[1], b.views[1])


@pytest.mark.services
def test_one_request_in_twenty_fails_and_nothing_is_lost(tmp_path, s3_env, faulty_s3):
    write_dataset(tmp_path / "set", [numbered(number) for number in range(400)], 50)
    remote = open_store(s3_env.bucket("faults") + "/set")
    for path in (tmp_path / "set").iterdir():
        remote.write(path.name, path.read_bytes())
    proxy = faulty_s3(share=0.05, seed=3)
    proxy.delay = 0.01
    recipe = config(remote.address, batch_size=50, workers=2, stream={"block": 4, "buffer_mb": 0.005})
    found, shown = batches(recipe, last_step=8), []
    for batch in found:
        shown += [number_of(view.numpy()) for view in batch.views[0]]
        assert batch.bad == []
    assert shown == samples(found)
    assert sorted(shown) == list(range(400))
    assert sum(proxy.counts[kind] for kind in ("reset", "lose", "cut", "truncate", "busy")) >= 5
    retries = sum(int(batch.counts[Counts.NAMES.index("retries")]) for batch in found)
    assert retries >= 5


def test_pairs_are_two_near_frames_of_one_video(tmp_path):
    runs = [("a", 9), (None, 2), ("b", 1), ("c", 12)]
    write_dataset(tmp_path / "set", [numbered(number) for number in range(24)], 7, runs)
    recipe = config(str(tmp_path / "set"), views={"size": 32, "frame_gap": 3})
    data, seen = load_data(recipe), set()
    for later in (False, True):
        for batch in batches(recipe, last_step=12, cut_later=later):
            for row, sample in enumerate(batch.plan.samples.tolist()):
                first, second = (number_of(view[row].numpy()) for view in batch.views)
                assert first == sample
                assert data.video_of(first) == data.video_of(second)
                alone = sample in (9, 10, 11)
                assert (second == first) == alone
                assert abs(second - first) <= 3
                seen.add(second - first)
    assert seen == {-3, -2, -1, 0, 1, 2, 3}


def test_datasets_come_as_often_as_their_weight_says(tmp_path):
    write_dataset(tmp_path / "a", [numbered(number) for number in range(10)], 4)
    write_dataset(tmp_path / "b", [numbered(100 + number) for number in range(6)], 4)
    weighted = [
        {"address": str(tmp_path / "a"), "weight": 0.5},
        {"address": str(tmp_path / "b"), "weight": 2},
    ]
    recipe = config(weighted, batch_size=17, views={"size": 32})
    counts: dict[int, int] = {}
    boxes = []
    for batch in batches(recipe, last_step=4):
        for row in range(17):
            number = number_of(batch.views[0][row].numpy())
            counts[number] = counts.get(number, 0) + 1
        boxes.append(batch.boxes[0])
    assert counts == dict.fromkeys(range(10), 2) | {100 + number: 8 for number in range(6)}
    assert len(torch.unique(torch.cat(boxes), dim=0)) > 60  # copies get crops of their own


def spoil(folder, image, how=b"spoilt") -> None:
    """Overwrite the middle of an image in whichever shard it lies in."""
    for tar in folder.glob("*.tar"):
        data = tar.read_bytes()
        at = data.find(image)
        if at >= 0:
            tar.write_bytes(data[: at + 40] + how + data[at + 40 + len(how) :])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_sample_is_named_and_the_next_one_stands_in(tmp_path, workers):
    images = [numbered(number) for number in range(10)]
    write_dataset(tmp_path / "set", images, 5)
    for number in (4, 7, 8):
        spoil(tmp_path / "set", images[number])
    for world_size in (1, 3):
        shown, bad = {}, []
        for rank in range(world_size):
            recipe = config(str(tmp_path / "set"), workers=workers, batch_size=10)
            (batch,) = batches(recipe, rank, world_size, last_step=1)
            for row, sample in enumerate(batch.plan.samples.tolist()):
                shown[sample] = number_of(batch.views[1][row].numpy())
            bad += batch.bad
        assert shown == {number: number for number in range(10)} | {4: 0, 7: 9, 8: 9}
        assert sorted(each.sample for each in bad) == [4, 7, 8]
        assert "shard-000000.tar: sample 000000004: its bytes" in sorted(each.reason for each in bad)[0]


def test_of_a_corrupt_frame_no_pair_is_made(tmp_path):
    images = [numbered(number) for number in range(6)]
    write_dataset(tmp_path / "set", images, 3, [("a", 3), ("b", 3)])
    spoil(tmp_path / "set", images[2])
    recipe = config(str(tmp_path / "set"), batch_size=6, views={"size": 32, "frame_gap": 1})
    (batch,) = batches(recipe, last_step=1)
    pairs = {}
    for row, sample in enumerate(batch.plan.samples.tolist()):
        pairs[sample] = tuple(number_of(view[row].numpy()) for view in batch.views)
    assert pairs[2] == (0, 0)
    assert pairs[1] in ((1, 0), (1, 1))
    assert pairs[0] == (0, 1)


def test_a_shard_without_a_good_sample_ends_the_run(tmp_path):
    images = [numbered(number) for number in range(3)]
    write_dataset(tmp_path / "set", images, 3)
    for image in images:
        spoil(tmp_path / "set", image)
    with pytest.raises(HvcError, match=r"shard-000000\.tar: no sample of it can be used.*hvc verify"):
        batches(config(str(tmp_path / "set")), last_step=1)


def test_too_many_corrupt_samples_end_the_run(tmp_path, caplog):
    images = [numbered(number) for number in range(40)]
    write_dataset(tmp_path / "set", images, 40)
    for image in images[:30]:
        spoil(tmp_path / "set", image)
    assert (allowed(0, 10**6), allowed(0.001, 10), allowed(0.001, 12_345), allowed(7, 10)) == (0, 1, 13, 7)
    recipe = config(str(tmp_path / "set"))
    for limit, fails in ((60, False), (59, True)):
        ranks = [BadSamples(limit, rank) for rank in range(2)]  # as if both had met the same
        for batch in batches(recipe, last_step=5):
            for rank in ranks:
                rank.add(batch)
        if fails:
            with pytest.raises(HvcError, match=r"60 corrupt samples, 59 are allowed"):
                ranks[0].check(0, lambda values: 2 * values)
        else:
            assert ranks[0].check(0, lambda values: 2 * values) == 60
    lines = [record.message for record in caplog.records if "stands in" in record.message]
    assert len(lines) == 4 * 20


def test_a_batch_that_is_taken_again_after_going_back_counts_once(tmp_path):
    images = [numbered(number) for number in range(40)]
    write_dataset(tmp_path / "set", images, 40)
    for image in images[:30]:
        spoil(tmp_path / "set", image)
    bad = BadSamples(60, 0)
    found = list(batches(config(str(tmp_path / "set")), last_step=5))
    for batch in (*found[:3], found[2], *found[3:]):
        bad.add(batch)
    assert bad.check(0, lambda values: values) == 30


def test_an_altered_index_is_named(tmp_path):
    write_dataset(tmp_path / "set", PICTURES[:3], 3)
    index = tmp_path / "set" / "shard-000000.idx"
    data = bytearray(index.read_bytes())
    data[-1] ^= 1
    index.write_bytes(data)
    for workers in (0, 1):
        with pytest.raises(HvcError, match=r"^\S*shard-000000\.idx: altered.*hvc verify`$"):
            batches(config(str(tmp_path / "set"), workers=workers), last_step=1)


def _slow_start(recipe):
    places = {"rank": 0, "world_size": 1, "first_step": 0, "last_step": 10**6}
    running = stream(recipe, load_data(recipe), **places)
    next(running)
    import multiprocessing

    return running, [child for child in multiprocessing.active_children() if child.is_alive()]


def test_a_killed_worker_ends_in_words(photos):
    running, children = _slow_start(config(photos, workers=2))
    os.kill(children[0].pid, signal.SIGKILL)
    with pytest.raises(HvcError, match=r"rank 0: a loader process was killed.*memory.*last checkpoint"):
        for _ in running:
            pass


def test_a_worker_that_hangs_ends_in_words(photos, monkeypatch):
    monkeypatch.setattr(loaders, "SILENCE_SECONDS", 1.0)
    running, children = _slow_start(config(photos, workers=2))
    for child in children:
        os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(HvcError, match=r"rank 0: a loader process gave nothing for 1 s"):
        for _ in running:
            pass


def test_a_signal_to_the_whole_job_does_not_end_loaders_at_once(photos):
    running, children = _slow_start(config(photos, workers=1))
    for child in children:
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            os.kill(child.pid, number)
    for _ in range(20):  # more than were made already
        next(running)
    running.close()
    deadline = time.monotonic() + 20
    while any(child.is_alive() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(child.is_alive() for child in children)


def test_sixteen_bit_grey_is_scaled_not_cut():
    grey = Image.fromarray(np.array([[0, 32768], [65535, 257]], np.uint16))
    assert np.asarray(to_rgb(grey))[..., 0].tolist() == [[0, 127], [255, 1]]


def test_the_buffer_holds_what_the_order_needs(photos, monkeypatch, caplog):
    recipe = config(photos, batch_size=128, workers=2)
    data = load_data(recipe)
    mean = sum(shard.bytes for shard in data.shards) // data.samples
    needs = [buffer_need(recipe, data, ranks, 2) for ranks in (1, 4)]
    assert 64 * 64 * mean <= needs[0] <= 66 * 64 * mean  # 64 streams of 4 blocks of 16
    assert 16 * 64 * mean <= needs[1] <= 18 * 64 * mean
    monkeypatch.setattr("hvc.pretrain.data.stream.MAX_BUFFER", needs[0] - 1)
    warn_of_buffer(recipe, data, 1)
    assert not caplog.records  # a folder is not read ahead
    monkeypatch.setattr("hvc.pretrain.data.stream.FolderStore", type(None))
    warn_of_buffer(recipe, data, 4)
    assert not caplog.records
    warn_of_buffer(recipe, data, 1)
    assert "stream.buffer_mb" in caplog.text
