"""What a recipe asks in vain is said before there is a run; what is hardly meant, with its numbers."""

import pytest
import torch
from running import run_hvc, write_recipe
from training_data import pictures, write_dataset

from hvc.base.errors import UsageError
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.preflight import refuse_hopeless, warnings
from hvc.pretrain.recipe import TrainConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """Address of twelve pictures."""
    folder = tmp_path_factory.mktemp("twelve") / "set"
    write_dataset(folder, pictures(12), 6)
    return str(folder)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"subset": 13}, r"subset is 13, but .* has 12 samples"),
        ({"engine": {"sync_batchnorm": True}}, r"sync_batchnorm needs GPUs.*on the CPU"),
        ({"remainder": "drop", "batch_size": 13}, r"no full batch of 13"),
        ({"architecture": "nowhere.at_all:make"}, r"cannot import it"),
        ({"architecture": "json:make"}, r"module json has no 'make'"),
    ],
)
def test_what_cannot_work_is_refused(twelve, values, words):
    config = TrainConfig.parse({"data": twelve} | values)
    with pytest.raises(UsageError, match=words):
        refuse_hopeless(config, load_data(config), CPU)


def test_a_subset_of_all_is_none(twelve):
    config = TrainConfig.parse({"data": twelve, "subset": 12, "architecture": "json:loads"})
    refuse_hopeless(config, load_data(config), CPU)


@pytest.mark.parametrize(
    ("values", "world_size", "words"),
    [
        ({"batch_size": 13}, 1, ["batch_size is 13, but an epoch has 12 samples"]),
        ({"batch_size": 13, "remainder": "wrap"}, 1, ["filled up with repeated"]),
        ({"batch_size": 12}, 1, []),
        ({"batch_size": 2}, 3, ["batch_size is 2 for 3 processes: 1 without"]),
        (
            {"batch_size": 8, "engine": {"accumulate": 5}},
            2,
            ["accumulate is 5, but a process has at most 4"],
        ),
        ({"batch_size": 8, "engine": {"accumulate": 4}}, 2, []),
        ({"batch_size": 4, "steps": 9, "schedule": {"warmup_steps": 9}}, 1, ["the run has 9 steps"]),
        ({"batch_size": 4, "steps": 10, "schedule": {"warmup_steps": 9}}, 1, []),
        ({"batch_size": 4, "frames_per_video": 3}, 1, ["single images only"]),
        (
            {"batch_size": 12, "workers": 2, "stream": {"streams": 3}},
            2,
            ["streams is 3, but 4 loader processes share a batch of 12: up to 2 take"],
        ),
        ({"batch_size": 12, "workers": 2, "stream": {"streams": 4}}, 2, []),
        ({"batch_size": 12, "workers": 2, "shuffle": False, "stream": {"streams": 3}}, 2, []),
    ],
)
def test_what_is_hardly_meant_is_said_with_numbers(twelve, values, world_size, words):
    config = TrainConfig.parse({"data": twelve} | values)
    found = list(warnings(config, load_data(config), world_size))
    assert len(found) == len(words), found
    for line, part in zip(found, words, strict=True):
        assert part in line


@pytest.mark.slow
def test_a_refused_recipe_leaves_nothing_behind(twelve, tmp_path):
    recipe = write_recipe(tmp_path / "sync.yaml", twelve, engine={"sync_batchnorm": True, "device": "cpu"})
    done = run_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("engine.sync_batchnorm needs GPUs") == 1
    left = {path.name for path in tmp_path.iterdir()} - {"mlflow.db"}  # which comes with the recipe
    assert left == {"sync.yaml"}
