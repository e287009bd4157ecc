"""Several manifests as one numbering, videos, and what a recipe may say about data."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from training_data import numbered, write_dataset

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import StorageError
from hvc.pretrain.data.dataset import load_data, plan_run
from hvc.pretrain.data.order import RunOrder
from hvc.pretrain.recipe import TrainConfig

IMAGES = [numbered(number) for number in range(12)]


@pytest.fixture
def clips(tmp_path):
    """Ten samples: a video of four, a single image, a video of five."""
    write_dataset(tmp_path / "clips", IMAGES[:10], 4, [("a", 4), (None, 1), ("b", 5)], name="clips")
    return tmp_path / "clips"


def test_one_dataset_keeps_its_own_name(clips):
    data = load_data(TrainConfig.parse({"data": str(clips)}))
    manifest = json.loads((clips / "manifest.json").read_text())
    assert (data.digest, data.name, data.samples) == (manifest["digest"], "clips", 10)
    assert data.shard_sizes.tolist() == [4, 4, 2]


def test_several_are_numbered_one_after_the_other(clips, tmp_path):
    write_dataset(tmp_path / "photos", IMAGES[:3], 2, name="photos")
    sources = [str(tmp_path / "photos"), {"address": str(clips), "weight": 2}]
    data = load_data(TrainConfig.parse({"data": sources}))
    assert data.name == "photos+clips"
    assert data.starts.tolist() == [0, 2, 3, 7, 11, 13]
    assert data.videos.tolist() == [[3, 4], [8, 5]]
    assert [data.video_of(sample) for sample in (0, 3, 6, 7, 8, 12)] == [
        (0, 1),
        (3, 7),
        (3, 7),
        (7, 8),
        (8, 13),
        (8, 13),
    ]
    others = [load_data(TrainConfig.parse({"data": other})) for other in (sources[:1], sources[::-1])]
    assert len({data.digest, *(other.digest for other in others)}) == 3


def test_weights_frames_and_subset_decide_the_length_of_an_epoch(clips, tmp_path):
    write_dataset(tmp_path / "photos", IMAGES[:3], 2)
    both = [{"address": str(tmp_path / "photos"), "weight": 2}, str(clips)]

    def length(**values: object) -> int:
        config = TrainConfig.parse({"data": both, "batch_size": 4, **values})
        return RunOrder(plan_run(config, load_data(config))).samples

    assert length() == 2 * 3 + 10
    assert length(frames_per_video=2) == 2 * 3 + 2 + 1 + 2
    assert length(subset=13) == 16
    assert length(subset=1) <= 2


def test_what_is_wrong_is_said(clips, tmp_path):
    write_dataset(tmp_path / "photos", IMAGES[:3], 2)
    with pytest.raises(UsageError, match=r"no dataset at .*nowhere"):
        load_data(TrainConfig.parse({"data": str(tmp_path / "nowhere")}))
    with pytest.raises(HvcError, match="frame_gap asks for two frames"):
        load_data(TrainConfig.parse({"data": str(tmp_path / "photos"), "views": {"frame_gap": 2}}))
    groups = clips / "groups.jsonl"
    groups.write_text(groups.read_text().replace("5", "6"))
    with pytest.raises(HvcError, match=r"groups\.jsonl: altered.*hvc verify"):
        load_data(TrainConfig.parse({"data": str(clips), "views": {"frame_gap": 2}}))
    load_data(TrainConfig.parse({"data": str(clips)}))  # who needs no videos does not read them


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOENT, UsageError), (errno.ESTALE, StorageError), (errno.EIO, StorageError)],
)
def test_only_a_dataset_that_is_not_there_is_a_person_s_mistake(clips, monkeypatch, number, kind):
    def fail(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    config = TrainConfig.parse({"data": str(clips)})
    with monkeypatch.context() as patched, pytest.raises(HvcError) as caught:
        for name in ("read_bytes", "stat"):
            patched.setattr(Path, name, fail)
        load_data(config)
    assert type(caught.value) is kind


def test_a_bucket_without_a_dataset_may_have_one_later(monkeypatch):
    def missing(store):
        raise HvcError(f"no dataset at {store.address}")

    monkeypatch.setattr("hvc.pretrain.data.dataset.read_manifest", missing)
    with pytest.raises(HvcError) as caught:
        load_data(TrainConfig.parse({"data": "s3://bucket/nothing"}))
    assert type(caught.value) is HvcError


@pytest.mark.parametrize(
    "line", ["[1, 2]", '["a"]', '["a", 0]', '["a", true]', "{", "null", "5", '["a", "b"]']
)
def test_damaged_groups_are_named(tmp_path, line, monkeypatch):
    runs = [("a", 3)]
    write_dataset(tmp_path / "set", IMAGES[:3], 2, runs)
    import hashlib

    groups, path = tmp_path / "set" / "groups.jsonl", tmp_path / "set" / "manifest.json"
    before = hashlib.sha256(groups.read_bytes()).hexdigest()
    groups.write_text(line + "\n")
    path.write_text(path.read_text().replace(before, hashlib.sha256(groups.read_bytes()).hexdigest()))
    data = load_data(TrainConfig.parse({"data": str(tmp_path / "set")}))
    with pytest.raises(HvcError, match=r"groups\.jsonl: (line 1 is not|\d+ samples)"):
        _ = data.videos


def test_ways_to_write_data():
    short = TrainConfig.parse({"data": "x"})
    assert short.resolved()["data"] == "x"
    assert TrainConfig.parse({"data": "x"}, ["data=y"]).resolved()["data"] == "y"
    several = TrainConfig.parse({"data": ["x", {"address": "y", "weight": 0.5}]})
    assert [(source.address, source.weight) for source in several.data] == [("x", 1), ("y", 0.5)]
    assert TrainConfig.parse(several.resolved()) == several
    assert (
        TrainConfig.parse({"data": "x"}, ["data=[x, y]"]).data
        == TrainConfig.parse({"data": ["x", "y"]}).data
    )
    for wrong, words in {
        "names no dataset": [],
        "3 is no dataset": 3,
        "must be above 0": [{"address": "x", "weight": 0}],
        "unknown key 'data.0.adress'": [{"adress": "x"}],
    }.items():
        with pytest.raises(UsageError, match=wrong):
            TrainConfig.parse({"data": words})


def test_where_data_is_read_and_cut_is_no_part_of_the_method():
    method = TrainConfig.parse({"data": "x"}).method()
    elsewhere = {"data": ["y"], "workers": 7, "views": {"cut": "device"}}
    elsewhere["stream"] = {"cache": "/c", "buffer_mb": 1, "prefetch": 9, "max_bad": 4}
    assert TrainConfig.parse(elsewhere).method() == method
    for deciding in (
        {"remainder": "drop"},
        {"stream": {"block": 8}},
        {"views": {"flip": 0.5}},
        {"frames_per_video": 80},
        {"subset": 100},
    ):
        assert TrainConfig.parse({"data": "x"} | deciding).method() != method


def test_recipes_of_older_versions_mean_the_same():
    old = Path(__file__).parents[2] / "configs" / "paper-coco.yaml"
    assert TrainConfig.load(old).views.frame_gap is None
    assert np.isclose(TrainConfig.load(old).stream.max_bad, 0.001)
