"""A small dataset and one whole training run, shared by all tests that only read them."""

import pytest
from running import hvc_json, make_images, write_recipe


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Address of 29 pictures in several shards."""
    folder = tmp_path_factory.mktemp("data")
    make_images(folder / "images", 29)
    hvc_json("shard", "folder", "images", "dataset", "--target-mb", "0.02", cwd=folder)
    return str(folder / "dataset")


@pytest.fixture(scope="session")
def trained(dataset, tmp_path_factory):
    """Folder and report of a run of two ranks and six steps, recipe and run folder named `whole`."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(folder / "whole.yaml", dataset)
    result = hvc_json("train", str(recipe), "--processes", "2", cwd=folder)
    return folder, result
