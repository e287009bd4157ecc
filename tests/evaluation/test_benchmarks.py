"""Every benchmark has a reader, a protocol and a name that commands take."""

from functools import partial

import pytest
from evaluation_layouts import davis2016, davis2017, jhmdb, vip, vost, youtube_vos
from evaluation_video import make_video

import hvc
from hvc.base.errors import HvcError
from hvc.base.stage import Provenance, never
from hvc.evaluation.evaluate import run
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.propagation.presets import PRESETS

MAKE = {
    "davis2016": lambda root: davis2016(root, "blackswan", "camel"),
    "davis2016-merged": lambda root: davis2017(root, "blackswan", "camel"),
    "davis2017": lambda root: davis2017(root, "blackswan", "camel"),
    "davis2017-test-dev": lambda root: davis2017(root, "gym", "lock", annotated=1),
    "youtube-vos-2018": youtube_vos,
    "youtube-vos-2019": youtube_vos,
    "vost": lambda root: vost(root, "1_cut", "2_peel"),
    "vip": lambda root: vip(root, "videos1", "videos2"),
    "jhmdb": lambda root: jhmdb(root, {"a": "catch", "b": "catch", "c": "wave", "d": "wave"}),
    "folder": lambda root: make_video().write(root / "mine").parent,
}


@pytest.mark.parametrize(
    ("benchmark", "fine", "coarse", "said"),
    [
        (
            "vost",
            vost,
            partial(vost, ten=False),
            "has no JPEGImages_10fps: labels travel through every other",
        ),
        (
            "youtube-vos-2019",
            youtube_vos,
            partial(youtube_vos, every=False),
            "has no valid_all_frames: labels",
        ),
    ],
)
def test_longer_steps_than_in_published_figures_are_said_once(
    tmp_path, caplog, benchmark, fine, coarse, said
):
    for number, make in enumerate((fine, coarse)):
        root = make(tmp_path / str(number), "0a49f5265b")
        values = {"checkpoint": "baseline:first-mask", "benchmark": benchmark, "data": str(root)}
        values |= {"output": str(tmp_path / "results"), "tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}
        run(EvaluateConfig.parse(values | {"workers": 1}), never, Provenance())
        assert caplog.text.count(said) == number


def test_the_commands_names_are_these():
    assert [str(name) for name in hvc.Benchmark] == list(BENCHMARKS) == list(MAKE)
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert benchmark.preset in PRESETS


@pytest.mark.parametrize("name", MAKE)
def test_what_is_read_is_what_is_there(tmp_path, name):
    benchmark, root = BENCHMARKS[name], MAKE[name](tmp_path)
    sequences = benchmark.read(root, None)
    names = [sequence.name for sequence in sequences]
    listed = benchmark.listed(root)
    assert names == [one for one in listed if one in names]
    official = {"davis2016": 20, "davis2016-merged": 20, "davis2017": 30, "davis2017-test-dev": 30}
    assert len(listed) == official.get(name, len(names))  # without a list there, the official one
    assert [sequence.name for sequence in benchmark.read(root, names[-1:])] == names[-1:]
    with pytest.raises(HvcError, match="has no sequence nobody; it has: "):
        benchmark.read(root, ["nobody"])
    for sequence in sequences:
        assert (sequence.joints is not None) == (benchmark.kind == "joints")
        assert (sequence.classes is not None) == (benchmark.kind == "parts")
        assert sequence.annotated == (benchmark.package is None)


DATA = {
    "davis2017": "DAVIS",
    "youtube-vos-2018": "YouTube-VOS",
    "vost": "VOST",
    "vip": "VIP",
    "jhmdb": "JHMDB",
    "folder": "own videos",
}


OTHERS = [
    (name, other)
    for name in MAKE
    for other, data in DATA.items()
    if name != "folder" and not name.startswith(data.lower())  # of one layout: masks and lists tell apart
]


@pytest.mark.parametrize(("name", "other"), OTHERS)
def test_another_benchmarks_data_is_recognised(tmp_path, name, other):
    root = MAKE[other](tmp_path)
    with pytest.raises(HvcError, match=rf"is not a \S+ folder: expected {tmp_path}.*; .*{DATA[other]}.*\("):
        BENCHMARKS[name].read(root, None)
