"""Batches: the same samples and crops on any number of ranks, from a folder and from S3."""

import numpy as np
import pytest
import torch
from PIL import Image
from running import hvc_json, make_images

from hvc.base.errors import HvcError
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.stream import ShardReader, load_manifest, stream, to_rgb


def config(data, **values):
    return TrainConfig.parse({"data": data, "batch_size": 8, "views": {"size": 32}, "workers": 0} | values)


def batches(recipe, rank=0, world_size=1, first_step=0, last_step=8):
    manifest = load_manifest(recipe.data)
    return list(
        stream(
            recipe,
            manifest,
            rank=rank,
            world_size=world_size,
            first_step=first_step,
            last_step=last_step,
        )
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_out_the_same_views(dataset, workers):
    alone = batches(config(dataset))
    ranks = [batches(config(dataset, workers=workers), rank, 3) for rank in range(3)]
    for step, whole in enumerate(alone):
        parts = [rank[step] for rank in ranks]
        for view in (0, 1):
            joined = torch.cat([part.views[view] for part in parts])
            assert torch.equal(joined, whole.views[view])
            assert torch.equal(torch.cat([part.boxes[view] for part in parts]), whole.boxes[view])
    assert sum(len(batch.plan.samples) for batch in alone[:4]) == 29


def test_a_later_start_gives_the_same_batches(dataset):
    whole, rest = batches(config(dataset)), batches(config(dataset), first_step=5)
    for a, b in zip(whole[5:], rest, strict=True):
        assert a.plan.samples.tolist() == b.plan.samples.tolist()
        assert torch.equal(a.views[1], b.views[1])


def test_epochs_and_views_differ(dataset):
    recipe = config(dataset, batch_size=29, shuffle=False)
    first, second = batches(recipe, last_step=2)
    assert first.plan.samples.tolist() == second.plan.samples.tolist()
    assert not torch.equal(first.boxes[0], first.boxes[1])
    assert not torch.equal(first.boxes[0], second.boxes[0])


@pytest.mark.services
def test_s3_gives_what_the_folder_gives(tmp_path, s3_env):
    make_images(tmp_path / "images", 11)
    addresses = [str(tmp_path / "set"), s3_env.bucket("stream") + "/set"]
    for address in addresses:
        hvc_json("shard", "folder", "images", address, "--target-mb", "0.01", cwd=tmp_path)
    local, remote = (
        batches(config(address, workers=n), last_step=3) for n, address in enumerate(addresses)
    )
    for a, b in zip(local, remote, strict=True):
        assert torch.equal(a.views[0], b.views[0])


def test_a_shard_that_was_altered_is_named(tmp_path):
    make_images(tmp_path / "images", 3)
    hvc_json("shard", "folder", "images", "set", cwd=tmp_path)
    manifest = load_manifest(str(tmp_path / "set"))
    tar = tmp_path / "set" / manifest.shards[0].path
    tar.write_bytes(b"\0" * tar.stat().st_size)
    with pytest.raises(HvcError, match=r"shard-000000\.tar: sample 0.*hvc verify"):
        ShardReader(manifest, str(tmp_path / "set")).image(0)


def test_an_altered_index_is_named(tmp_path):
    make_images(tmp_path / "images", 3)
    hvc_json("shard", "folder", "images", "set", cwd=tmp_path)
    manifest = load_manifest(str(tmp_path / "set"))
    index = tmp_path / "set" / manifest.shards[0].index.path
    data = bytearray(index.read_bytes())
    data[-1] ^= 1
    index.write_bytes(data)
    for workers in (0, 1):
        with pytest.raises(HvcError, match=r"^\S*shard-000000\.idx: altered.*hvc verify`$"):
            batches(config(str(tmp_path / "set"), workers=workers), last_step=1)


def test_sixteen_bit_grey_is_scaled_not_cut():
    grey = Image.fromarray(np.array([[0, 32768], [65535, 257]], np.uint16))
    assert np.asarray(to_rgb(grey))[..., 0].tolist() == [[0, 127], [255, 1]]
