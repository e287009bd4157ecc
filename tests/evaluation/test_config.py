"""What the evaluation's configuration takes and refuses, and what its scores are called."""

import os

import pytest
import torch

from hvc.base.errors import HvcError, UsageError
from hvc.base.stage import Provenance, never
from hvc.evaluation.evaluate import run
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.propagation.presets import PRESETS
from hvc.evaluation.propagation.protocol import Protocol
from hvc.evaluation.reports.naming import metrics_path, subset_suffix
from hvc.evaluation.trunks.tracked import shown, tracking_uri
from hvc.pretrain.tracking.mlflow_client import connect
from hvc.pretrain.tracking.run_note import RunNote


def parse(*overrides):
    values = {"checkpoint": "baseline:untrained", "benchmark": "folder", "data": "clips"}
    return EvaluateConfig.parse(values, list(overrides))


@pytest.mark.parametrize("text", ["00001", "00010", "7", "no", "2016-01-02"])
def test_names_that_yaml_takes_for_something_else_must_be_quoted(text):
    with pytest.raises(UsageError, match=r"sequences: .*quote names"):
        parse(f"sequences=[{text}]")
    assert parse(f'sequences=["{text}"]').sequences == [text]


def test_no_sequences_is_an_error_and_repeats_are_dropped():
    with pytest.raises(UsageError, match=r"sequences: needs 1 or more entries"):
        parse("sequences=[]")
    assert parse("sequences=[b,a,b]").sequences == ["b", "a"]
    assert parse("sequences=null").sequences is None


@pytest.mark.parametrize("value", [".inf", ".nan", "0", "-1"])
@pytest.mark.parametrize("key", ["radius", "temperature"])
def test_the_protocols_numbers_are_finite_and_positive(key, value):
    with pytest.raises(UsageError, match=rf"protocol.{key}"):
        parse(f"protocol.{key}={value}")


def test_a_benchmark_has_a_protocol_which_a_preset_replaces_and_overrides_change():
    assert (parse().preset, parse().protocol, parse().protocol_name) == ("hvc", Protocol(), "hvc")
    crw = parse("preset=crw")
    assert crw.protocol == PRESETS["crw"]
    assert crw.protocol_name == "crw"
    changed = parse("preset=crw", "protocol.context=3")
    assert changed.protocol == PRESETS["crw"].model_copy(update={"context": 3})
    assert changed.protocol_name == f"custom-{changed.protocol.digest()[:6]}"
    assert parse("protocol.context=50").protocol_name == "hvc", "nothing is changed by that"
    for name, benchmark in BENCHMARKS.items():
        values = {"checkpoint": "baseline:untrained", "benchmark": name, "data": "x"}
        assert EvaluateConfig.parse(values).protocol_name == benchmark.preset


def test_a_resolved_configuration_means_the_same_again():
    config = parse("preset=crw-vip", "protocol.top_k=3", "workers=2", "parts=3", "part=2")
    assert EvaluateConfig.parse(config.resolved()) == config


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["preset=crv"], "no preset 'crv'; did you mean crw?.*hvc, sfc"),
        (["benchmark=davis2061"], "no benchmark 'davis2061'; did you mean davis20.*vost, vip"),
        (["part=2", "parts=2"], "part 2 of 2: parts are counted from 0 to 1"),
        (["merge=baseline:first-mask"], "nothing to merge"),
        (["workers=-1"], "workers"),
    ],
)
def test_what_is_not_known_or_makes_no_sense_is_said(overrides, words):
    with pytest.raises(UsageError, match=words):
        parse(*overrides)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_seeds_are_what_torch_takes(seed):
    assert parse(f"seed={2**63 - 1}").seed == 2**63 - 1
    with pytest.raises(UsageError, match="seed"):
        parse(f"seed={seed}")


def test_a_password_in_the_configuration_is_refused_unseen():
    with pytest.raises(UsageError, match="tracking_uri") as caught:
        parse("tracking_uri=http://me:hunter2@host/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(HvcError, match=r"no GPU.*device=cpu"):
        run(parse("device=cuda"), never, Provenance())


@pytest.mark.parametrize(
    ("benchmark", "data", "path"),
    [
        ("davis2016", "/data/davis", "eval/davis2016/hvc"),
        ("folder", "/data/my clips (2)/", "eval/folder-my-clips-2-/hvc"),
        ("folder", "/data/clips/../Ünder", "eval/folder--nder/hvc"),
        ("folder", ".", f"eval/folder-{os.path.basename(os.getcwd())}/hvc"),  # noqa: PTH109, PTH119
    ],
)
def test_folders_are_benchmarks_of_their_own(benchmark, data, path):
    assert metrics_path(benchmark, data, "hvc") == path


def test_only_a_subset_is_called_so():
    assert subset_suffix(["b", "a"], ["a", "b"]) == ""
    parts = {subset_suffix(chosen, ["a", "b"]) for chosen in (["a"], ["b"], ["a", "b", "extra"])}
    assert len(parts) == 3
    assert all(part.startswith("-subset-") and len(part) == len("-subset-") + 6 for part in parts)
    assert subset_suffix(["b", "a"], "abc") == subset_suffix(["a", "b"], "abc")


def test_where_a_checkpoints_run_is_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000002"
    checkpoint.mkdir(parents=True)
    assert tracking_uri(None, str(checkpoint)).endswith("outputs/mlflow.db")
    RunNote("sqlite:///there.db", "hvc", "key", run_id="a").write(tmp_path / "run")
    assert tracking_uri(None, str(checkpoint)) == "sqlite:///there.db"
    assert tracking_uri("http://given", str(checkpoint)) == "http://given"
    assert tracking_uri(None, "runs:/a").endswith("outputs/mlflow.db")
    monkeypatch.chdir(checkpoint)  # which is not meant by no checkpoint, as in `hvc watch`
    assert tracking_uri(None, "").endswith("outputs/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert tracking_uri(None, str(checkpoint)) == "http://environment"


def test_errors_are_shown_without_the_password():
    uri = "http://me:hunter2@host:1/"
    error = ValueError(f"no answer from {uri} nor from http://me:hunter2@host:1/api")
    assert shown(error, uri) == "no answer from http://host:1/ nor from http://host:1/api"


def test_an_address_that_is_none_is_said_without_the_password_in_it():
    uri = "http://me:hunter2@[host"
    assert shown(ValueError(f"what is {uri}"), uri) == "what is (not a valid address)"
    with pytest.raises(HvcError, match="not a valid address"):
        connect(uri)
