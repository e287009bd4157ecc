"""`hvc bench-data`: figures of a real dataset, from disk and from S3."""

import json
import multiprocessing
from pathlib import Path

import pytest
from running import hvc_json, run_hvc

from hvc.pretrain.data.bench import bench, read_samples
from hvc.pretrain.data.bench_figures import Report, Stage, Stream
from hvc.pretrain.data.bench_text import lines
from hvc.pretrain.data.dataset import load_data
from hvc.pretrain.data.reader import SampleReader
from hvc.pretrain.recipe import TrainConfig

SAMPLES = 29


def config_of(address, **values):
    return TrainConfig.parse({"data": address, "batch_size": 4, "workers": 0, **values})


@pytest.fixture
def report(dataset):
    said = []
    config = config_of(dataset)
    made = bench(config, load_data(config), 0.05, 2, said.append)
    assert said[0] == "reading"
    assert len(said) == 6
    return made


def test_every_stage_is_timed_alone_and_together(report):
    read, decode, cut, pack = report.stages
    assert [stage.name for stage in report.stages] == ["read", "decode", "cut views", "pack views"]
    assert all(stage.samples > 0 and 0.05 <= stage.seconds < 5 for stage in report.stages)
    assert read.cumulated == pytest.approx(read.rate)
    together = 1 / (1 / read.rate + 1 / decode.rate)
    assert decode.cumulated == pytest.approx(together)
    assert cut.cumulated == pytest.approx(1 / (1 / together + 1 / cut.rate))
    assert pack.cumulated == pytest.approx(1 / (1 / together + 1 / pack.rate))


def test_the_stream_is_one_ranks_share(report):
    assert report.samples == SAMPLES
    assert report.bad == 0
    for each in report.streams:
        assert each.stage.samples > 0
        assert each.memory_mb > 50  # this process has torch
        assert each.hit_rate is None
    assert any("2 x 1 workers" in line for line in report.quality)


def test_reading_takes_every_sample_once_per_epoch(dataset):
    config = config_of(dataset)
    data = load_data(config)
    reader = SampleReader(data, config.stream)
    stream = read_samples(config, data, reader)
    first = [next(stream) for _ in range(SAMPLES)]
    second = [next(stream) for _ in range(SAMPLES)]
    reader.close()
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(first)) == SAMPLES


def test_waiting_is_what_the_stream_lacks():
    stream = Stream(Stage("stream, cut", 300, 1.0, 1000.0), 0.1, 100.0, 0.0, 0, None)
    assert stream.waiting(1500) == pytest.approx(0.8)
    assert stream.waiting(300) == 0
    assert stream.waiting(100) == 0


def advice(rate, alone, workers=2, remote=False, read=10_000.0):
    stages = tuple(
        Stage(name, int(speed), 1.0, 1000.0, alone)
        for name, speed in (("read", read), ("decode", 500), ("cut views", 500), ("pack views", 5000))
    )
    streams = (Stream(Stage("stream, packed", int(rate), 1.0, 1000.0), 0.1, 100.0, 3.0, 0, None),)
    text = lines(Report("set", 9, remote, workers, 1, 0, stages, streams, ("quality",)), 1500)
    return "\n".join(text)


def test_the_advice_fits_what_was_measured():
    assert "keeps up" in advice(2000, 500)
    assert "about 3 per GPU" in advice(1000, 500)
    assert "cores are short" in advice(500, 500)
    assert "stream.cache" in advice(500, 500, remote=True, read=600)
    assert "disk of the node" in advice(500, 500, read=600)
    assert "stream.cache" not in advice(1000, 500, remote=True)


def test_the_command_prints_a_table_and_json(dataset, tmp_path):
    values = hvc_json("bench-data", dataset, "--seconds", "0.1", "--workers", "1", cwd=tmp_path)
    assert values["workers"] == 1
    assert values["samples"] == SAMPLES
    assert 0 <= values["streams"][0]["gpu_waits"] <= 1
    assert values["stages"][0]["samples_per_second"] > 0


def test_a_recipe_decides_batch_and_views(dataset, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: elsewhere\nbatch_size: 5\nworkers: 0\nviews: {size: 32}\n")
    done = run_hvc("bench-data", dataset, "--config", str(recipe), "--seconds", "0.1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "per batch of 5" in done.stdout
    assert "0 loader processes" in done.stdout
    assert done.stderr == ""  # no progress line but on a terminal


def test_no_loader_process_stays(dataset):
    config = config_of(dataset, workers=1)
    made = bench(config, load_data(config), 0.05, 1, lambda _: None)
    assert made.streams[0].memory_mb > 0
    for child in multiprocessing.active_children():
        child.join(20)
    assert not multiprocessing.active_children()


@pytest.mark.services
def test_from_s3_requests_and_cache_hits_count(dataset, s3_env, tmp_path):
    bucket = s3_env.bucket("bench")
    for path in Path(dataset).iterdir():
        s3_env.client().upload_file(str(path), bucket.removeprefix("s3://"), f"set/{path.name}")
    config = config_of(f"{bucket}/set", stream={"cache": str(tmp_path / "cache")})
    made = bench(config, load_data(config), 0.2, 1, lambda _: None)
    assert made.remote
    # What the stages before have read is in the cache.
    assert made.streams[-1].hit_rate == 1
    assert any("requests/s" in line for line in lines(made, 1500))
    assert any("cache hits 100%" in line for line in lines(made, 1500))
    json.dumps(made.values(1500))
