"""From a pipeline's file to tasks: values are handed on, and digests follow what decides a result."""

import os

import pytest
from evaluation_video import make_video
from hypothesis import given
from hypothesis import strategies as st
from registered_runs import RegisteredRun
from running import make_images
from training_data import pictures, write_dataset

from hvc.base.config import Config
from hvc.base.errors import UsageError
from hvc.pretrain.recipe import TrainConfig
from hvc.slurm.pipeline_config import PipelineConfig
from hvc.slurm.pipeline_inputs import Inputs
from hvc.slurm.pipeline_late import LateConfig, newest_of
from hvc.slurm.pipeline_outputs import done_of
from hvc.slurm.pipeline_submit import submit_pipeline
from hvc.slurm.pipeline_tasks import tasks_of, unlike
from hvc.slurm.sweep_command import sweep_pipeline

PLAIN = st.integers(0, 2) | st.booleans()
SETTINGS = st.dictionaries(
    st.sampled_from("abc"), PLAIN | st.dictionaries(st.sampled_from("xy"), PLAIN, max_size=2), max_size=3
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "photos", 3)
    make_video(frames=2).write(tmp_path / "clips" / "clip")
    return tmp_path


def pipeline(**changes):
    values = {
        "name": "p",
        "shard": {"config": {"inputs": [{"source": "folder", "address": "photos"}]}},
        "train": {"config": {"steps": 5, "views": {"size": 64}}},
        "evaluate": [{"config": {"benchmark": "folder", "data": "clips"}}],
    }
    return PipelineConfig.parse(values | changes)


def tasks(config, cluster="cpu.yaml", uri=None):
    inputs = Inputs()
    made = tasks_of(config, cluster, uri, inputs)
    assert inputs.problems == []
    return {task.key: task for task in made}


def changed(before, after):
    return {key for key in after if key not in before or before[key].digest != after[key].digest}


def test_what_one_stage_makes_the_next_takes(here):
    made = tasks(pipeline(), uri="http://mlflow:5000")
    shard, train, evaluate = made.values()
    assert (shard.need, train.need, evaluate.need) == (None, "shard", "train")
    recipe = TrainConfig.parse(train.config)
    assert [source.address for source in recipe.data] == [shard.output] == [shard.config["output"]]
    assert (recipe.steps, recipe.views.size, recipe.output) == (5, 64, train.output)
    late = LateConfig.parse(evaluate.config)
    assert (late.run, late.checkpoints) == (train.output, f"{train.output}/checkpoints")
    assert late.evaluate["data"] == str(here / "clips")
    assert recipe.tracking.uri == late.evaluate["tracking_uri"] == "http://mlflow:5000"
    assert all(task.output.endswith(task.digest[:12]) for task in made.values())
    assert done_of(made.values()) == set()


def test_mlflow_of_a_stages_settings_is_that_of_all_stages(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    (here / "cpu.yaml").write_text("{name: c, mlflow: 'http://of-the-cluster:5000'}")
    train = {"config": {"steps": 5, "tracking.uri": "http://mlflow:5000"}}
    report = submit_pipeline(pipeline(train=train), "cpu.yaml", dry_run=True, unchecked=True)
    _, (recipe,), (late,), (last,) = report.configs
    assert recipe["tracking"]["uri"] == "http://mlflow:5000"
    assert late["evaluate"]["tracking_uri"] == last["tracking_uri"] == "http://mlflow:5000"


def test_outputs_can_be_in_a_bucket(here):
    values = pipeline().resolved()
    values["shard"]["output"] = "s3://bucket/sets/"
    values["train"]["config"]["checkpoint.address"] = "s3://bucket/checkpoints"
    shard, train, evaluate = tasks(PipelineConfig.parse(values)).values()
    assert shard.output == f"s3://bucket/sets/photos-{shard.digest[:12]}"
    name = f"hvc-{train.digest[:12]}"
    assert train.output == str(here / "pipelines" / "p" / "runs" / name)
    assert train.config["checkpoint"]["address"] == f"s3://bucket/checkpoints/{name}"
    assert LateConfig.parse(evaluate.config).checkpoints == f"s3://bucket/checkpoints/{name}"


@pytest.mark.parametrize(
    ("change", "concerned"),
    [
        ({"train": {"config": {"steps": 6, "views": {"size": 64}}}}, {"train", "evaluate-folder"}),
        ({"train": {"config": {"steps": 5, "views.size": 64, "workers": 7, "name": "other"}}}, set()),
        (
            {
                "evaluate": [
                    {"config": {"benchmark": "folder", "data": "clips", "protocol": {"context": 3}}}
                ]
            },
            {"evaluate-folder"},
        ),
        ({"evaluate": [{"parts": 4, "config": {"benchmark": "folder", "data": "clips"}}]}, set()),
        (
            {"shard": {"config": {"inputs": [{"source": "folder", "address": "photos"}], "seed": 1}}},
            {"shard", "train", "evaluate-folder"},
        ),
    ],
)
def test_a_change_concerns_what_it_decides_and_what_follows(here, change, concerned):
    before = tasks(pipeline())
    assert changed(before, tasks(pipeline())) == set()
    assert changed(before, tasks(pipeline(**change))) == concerned


def test_another_photo_or_one_that_was_altered_concerns_everything(here):
    before = tasks(pipeline())
    photo = here / "photos" / "0001.jpg"
    os.utime(photo, (1, 1))
    altered = tasks(pipeline())
    assert changed(before, altered) == set(before)
    make_images(here / "photos", 4)
    assert changed(altered, tasks(pipeline())) == set(before)


def test_a_checkpoint_is_that_of_now_whenever_the_job_begins(here):
    uri = f"sqlite:///{here}/mlflow.db"
    run = RegisteredRun(uri, here / "run")
    run.save(10)
    config = {"benchmark": "folder", "data": "clips", "checkpoint": f"runs:/{run.run_id}"}
    alone = PipelineConfig.parse({"name": "p", "evaluate": [{"config": config}]})
    before = tasks(alone, uri=uri)
    late = LateConfig.parse(before["evaluate-folder"].config)
    assert late.run is None
    assert late.evaluate["checkpoint"] == f"runs:/{run.run_id}@10"
    assert changed(before, tasks(alone, uri=uri)) == set()
    run.save(20)
    assert changed(before, tasks(alone, uri=uri)) == {"evaluate-folder"}


def test_a_dataset_counts_by_its_manifest(here):
    write_dataset(here / "set", pictures(4), 2)
    train = {"config": {"data": "set", "steps": 5}}
    alone = PipelineConfig.parse({"name": "p", "train": train})
    before = tasks(alone)
    (here / "set").rename(here / "moved")
    moved = PipelineConfig.parse({"name": "p", "train": {"config": {"data": "moved", "steps": 5}}})
    assert changed(before, tasks(moved)) == set(), "the same data elsewhere"
    write_dataset(here / "set", pictures(4, seed=1), 2)
    assert changed(before, tasks(alone)) == {"train"}


def test_another_mask_concerns_the_evaluation_alone(here):
    before = tasks(pipeline())
    next((here / "clips" / "clip" / "masks").iterdir()).write_bytes(b"x")
    assert changed(before, tasks(pipeline())) == {"evaluate-folder"}


def test_members_of_a_sweep_have_names_outputs_and_evaluations_of_their_own(here):
    made = tasks(pipeline(sweep={"grid": {"seed": [1, 2]}, "members": [{"seed": 3, "views.size": 32}]}))
    labels = ["seed=1", "seed=2", "seed=3,size=32"]
    assert [key for key in made if key.startswith("train")] == [f"train/{label}" for label in labels]
    assert len({task.output for task in made.values()}) == 7
    for label in labels:
        train, evaluate = made[f"train/{label}"], made[f"evaluate-folder/{label}"]
        assert evaluate.need == train.key
        assert LateConfig.parse(evaluate.config).run == train.output
    names = [task.config["name"] for task in made.values() if task.stage == "train"]
    assert names == ["hvc-seed-1", "hvc-seed-2", "hvc-seed-3-size-32"]


@given(SETTINGS, SETTINGS)
def test_a_setting_of_a_later_version_at_its_default_changes_no_digest(values, usual):
    new = {"new": 7, "section": {"deep": 1}}
    assert unlike(values | new, usual | new) == unlike(values, usual)
    assert unlike({"inner": values | new}, {"inner": usual | new}) == unlike(
        {"inner": values}, {"inner": usual}
    )
    assert unlike(values | new, usual | new | {"section": {"deep": 2}})["section"] == {"deep": 1}
    assert unlike(usual, usual) == {}
    assert unlike(values, usual, values) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sweep": {"grid": {"workers": [1, 2]}}}, "train/workers=1 and train/workers=2 are the same work"),
        ({"sweep": {"grid": {"sede": [1, 2]}}}, "did you mean 'seed'"),
        ({"train": {"config": {"output": "x"}}}, "train.output"),
        ({"shard": {"config": {"inputs": [], "output": "x"}}}, "inputs"),
    ],
)
def test_what_cannot_be_is_said(here, change, said):
    with pytest.raises(UsageError, match=said):
        tasks(pipeline(**change))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "x"}, "there is no stage"),
        ({"name": "x", "evaluate": [{"config": {"benchmark": "folder", "data": "d"}}]}, "checkpoint"),
        ({"name": "x", "sweep": {"grid": {"seed": [1]}}, "shard": {"config": {}}}, "without train"),
        ({"name": "x", "trian": {}}, "did you mean 'train'"),
    ],
)
def test_a_file_that_is_no_pipeline(values, said):
    with pytest.raises(UsageError, match=said):
        PipelineConfig.parse(values)


def test_a_stage_without_a_cluster(here):
    with pytest.raises(UsageError, match=r"shard, train: no cluster; give --cluster"):
        tasks(
            pipeline(evaluate=[{"cluster": "x", "config": {"benchmark": "folder", "data": "clips"}}]), None
        )


def test_a_missing_input_is_told_of_and_a_dry_run_goes_on(here):
    inputs = Inputs()
    shard = {"config": {"inputs": [{"source": "folder", "address": "nowhere"}]}}
    made = tasks_of(pipeline(shard=shard), "cpu.yaml", None, inputs)
    assert len(made) == 3
    (problem,) = inputs.problems
    assert "nowhere" in problem


def test_a_run_that_has_not_finished_is_not_evaluated(here):
    with pytest.raises(Exception, match="has not finished"):
        newest_of(str(here / "run"), str(here / "run" / "checkpoints"))


def test_a_sweep_on_the_command_line_is_a_pipeline(here):
    (here / "small.yaml").write_text('{"name": "small", "data": "photos"}')
    config = sweep_pipeline(
        here / "small.yaml",
        ["steps=3"],
        ["seed=1,2"],
        ["folder clips protocol.context=3", "folder 'my clips'"],
        None,
        None,
    )
    assert config.name == "small-sweep"
    assert config.sweep is not None
    assert config.sweep.all_members == [{"seed": 1}, {"seed": 2}]
    assert config.train is not None
    assert config.train.config == {"steps": 3}
    assert [stage.config for stage in config.evaluate] == [
        {"benchmark": "folder", "data": "clips", "protocol": {"context": 3}},
        {"benchmark": "folder", "data": "my clips"},
    ]
    with pytest.raises(UsageError, match="--grid"):
        sweep_pipeline(here / "small.yaml", [], [], [], None, None)
    with pytest.raises(UsageError, match="BENCHMARK DATA"):
        sweep_pipeline(here / "small.yaml", [], ["seed=1"], ["davis2017"], None, None)
    with pytest.raises(UsageError, match="not valid YAML"):
        sweep_pipeline(here / "small.yaml", [], ["seed=1"], ["folder clips merge=[3"], None, None)
    with pytest.raises(UsageError, match="'data' is a value, not a section"):
        sweep_pipeline(here / "small.yaml", [], ["seed=1"], ["folder clips data.x=3"], None, None)


def test_a_pipeline_says_all_of_itself_as_yaml(here):
    config = pipeline(sweep={"grid": {"seed": [1]}})
    (here / "p.yaml").write_text(config.to_yaml())
    assert isinstance(config, Config)
    assert PipelineConfig.load(here / "p.yaml") == config
