"""sinfo's words against a cluster's file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.partitions import check_partition, gpus_in, minutes_of, parse, too_many_nodes

SINFO = """\
debug*|up|30:00|1-2|2|16|64000|(null)
gpu|up|2-00:00:00|1-infinite|30|96|1000000|gpu:a100:8(S:0-1)
gpu|up|2-00:00:00|1-infinite|2|64|500000|gpu:4
old|down|infinite|1-infinite|4|8|16000|(null)
"""
FITTING = {"nodes": 4, "tasks_per_node": 8, "gpus_per_node": 8, "cpus_per_task": 12, "memory_gb": 480}


def found(**values) -> dict[str, str]:
    cluster = ClusterConfig(**{"name": "c", "partition": "gpu", **values})
    return {
        check.name: f"{check.found}. {check.advice}" for check in check_partition(cluster, parse(SINFO))
    }


def test_what_fits_is_not_spoken_of():
    assert found(**FITTING, time_minutes=2880) == {}
    assert found(partition=None, nodes=2, time_minutes=30) == {}
    assert found(partition="debug,gpu", nodes=4) == {}  # Slurm takes the one that can


@pytest.mark.parametrize(
    ("values", "name", "words"),
    [
        ({"partition": "gpus"}, "partition", "did you mean gpu? There are debug, gpu, old"),
        ({"partition": "old"}, "partition", "partition old is down"),
        ({"time_minutes": 2881}, "time limit", "allows 2880 minutes, time_minutes is 2881"),
        ({"partition": None, "time_minutes": 31}, "time limit", "partition debug allows 30 minutes"),
        ({"nodes": 33}, "nodes", "32 nodes at most, 33 are asked for"),
        ({"partition": "debug", "nodes": 3, "time_minutes": 30}, "nodes", "2 nodes at most"),
        ({"cpus_per_task": 97}, "CPUs", "has 96 CPUs, 97 are asked for. Lower cpus_per_task"),
        ({"memory_gb": 1000}, "memory", "1000000 MiB of memory, 1024000"),
        ({"gpus_per_node": 9}, "GPUs", "has 8 GPUs, 9"),
        ({**FITTING, "nodes": 31}, "nodes", "not 31 nodes with all of 96 CPUs"),
    ],
)
def test_what_can_never_be_is_named_with_the_mend(values, name, words):
    checks = found(**values)
    assert list(checks) == [name]
    assert words in checks[name]


@pytest.mark.parametrize(
    ("nodes", "names", "words"),
    [
        (2, ["debug"], ""),
        (3, ["debug"], "partition debug gives a job 2 nodes at most, 3 are asked for"),
        (3, ["debug", "gpu"], ""),
        (33, ["debug", "gpu"], "partition gpu gives a job 32 nodes at most, 33 are asked for"),
        (33, ["debug", "unknown"], ""),
        (33, [], ""),
    ],
)
def test_more_nodes_than_any_partition_of_a_job_gives(nodes, names, words):
    assert too_many_nodes(nodes, names, parse(SINFO)) == words


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("30:00", 30),
        ("1:00:00", 60),
        ("2-00:00:00", 2880),
        ("0:30", 0.5),
        ("infinite", None),
        ("", None),
    ],
)
def test_time_limits(text, minutes):
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("(null)", 0),
        ("gpu:4", 4),
        ("gpu:a100:8(S:0-1)", 8),
        ("gpu:a100:4,gpu:h100:2", 6),
        ("shard:16,gpu:2", 2),
        ("gpu:3090:8(S:0,1)", 8),
        ("gpu:1g.10gb:7,gpu:2g.20gb:3(S:0)", 10),
        ("mygpu:3", 0),
    ],
)
def test_gpus(gres, count):
    assert gpus_in(gres) == count


@given(st.text("|*abc-0123456789:/()\n ", max_size=200))
def test_odd_words_of_sinfo_raise_nothing(text):
    list(check_partition(ClusterConfig(name="c", partition="abc"), parse(text)))
