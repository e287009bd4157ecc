"""Training never reads other bytes than were written, whatever happened to the files. See also
`tests/data_prep/test_fuzz.py`; `make soak` runs thousands of cases."""

import json

import numpy as np
import pytest
from mutation import Cases, changed, damaged, quick_and_soak
from small_dataset import SAMPLES, make_small_dataset, resealed, with_counts_and_digest

from hvc.base.errors import HvcError
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.data.reader import CorruptSampleError, SampleReader
from hvc.pretrain.data.stream import PartMaker
from hvc.pretrain.recipe import TrainConfig


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_small_dataset(tmp_path_factory.mktemp("fuzz") / "small")


@pytest.fixture
def copy(small, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    originals = small.files()

    def restore():
        for name, data in originals.items():
            (folder / name).write_bytes(data)

    restore()
    return folder, originals, restore


def config_of(folder):
    return TrainConfig.parse(
        {"data": str(folder), "output": str(folder.parent / "run"), "views": {"size": 32}, "workers": 0}
    )


def read(folder):
    """Sample -> its image, of all that can be read; CorruptSampleError and HvcError are as they should."""
    found = {}
    try:
        data = load_data(config_of(folder))
        reader = SampleReader(data, config_of(folder).stream)
        _ = data.videos
    except HvcError as error:
        assert len(str(error)) > 10
        return found
    for sample in range(min(data.samples, 2 * SAMPLES)):
        try:
            found[sample] = reader.image_bytes(sample)
        except HvcError as error:
            assert len(str(error)) > 10
    reader.close()
    return found


@quick_and_soak(60, 2000)
def test_bytes(copy, small, count):
    folder, originals, restore = copy
    names = sorted(originals)
    cases = Cases("reader", count)
    for rng in cases:
        name = rng.choice(names)
        with cases.case(name):
            (folder / name).write_bytes(damaged(originals[name], rng))
            for sample, data in read(folder).items():
                assert data == small.images[sample]
            if name != "manifest.json":  # as if whoever damaged it had made the hashes fit
                resealed(folder)
                assert set(read(folder).values()) <= {*small.images, b""}
        restore()


@quick_and_soak(40, 1000)
def test_manifests_that_lie(copy, small, count):
    folder, originals, _ = copy
    cases = Cases("reader and lie", count)
    for rng in cases:
        with cases.case("changed"):
            plain = changed(json.loads(originals["manifest.json"]), rng)
            (folder / "manifest.json").write_text(json.dumps(with_counts_and_digest(plain)))
            assert set(read(folder).values()) <= set(small.images)


@quick_and_soak(20, 500)
def test_views(copy, small, count):
    """A damaged sample is counted, named and replaced by another of its shard; others are as ever."""
    folder, originals, restore = copy
    whole = make_part(folder)
    cases = Cases("views", count)
    for rng in cases:
        name = rng.choice([name for name in originals if name.endswith(".tar")])
        with cases.case(name):
            (folder / name).write_bytes(damaged(originals[name], rng))
            try:
                part = make_part(folder)
            except HvcError as error:
                assert name in str(error)
            else:
                bad = {one.sample for one in part.bad}
                assert all(name in one.reason for one in part.bad)
                for sample in set(range(SAMPLES)) - bad:
                    for view, expected in zip(part.pixels, whole.pixels, strict=True):
                        assert (view[sample] == expected[sample]).all()
        restore()


def make_part(folder):
    config = config_of(folder)
    data = load_data(config)
    reader = SampleReader(data, config.stream)
    return PartMaker(config, data, reader, cut_later=False).part(0, np.arange(SAMPLES))


def test_a_flipped_bit_is_a_corrupt_sample(copy, small):
    folder, originals, _ = copy
    name = "shard-000001.tar"
    data = bytearray(originals[name])
    data[data.index(small.images[5]) + 20] ^= 4
    (folder / name).write_bytes(data)
    training = load_data(config_of(folder))
    with pytest.raises(CorruptSampleError, match=r"shard-000001.tar: sample 000000005"):
        SampleReader(training, config_of(folder).stream).image_bytes(5)
    assert len(read(folder)) == SAMPLES - 1
