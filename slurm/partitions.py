"""Whether a partition can give a job what the cluster's file asks for: pure functions of sinfo's words."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hvc.slurm.checks import Check
from hvc.slurm.cluster import ClusterConfig

FORMAT = "%P|%a|%l|%s|%D|%c|%m|%G"
"""Format of `sinfo --exact` that `parse` reads: one line per partition and kind of node."""


@dataclass(frozen=True)
class Nodes:
    """Nodes of one kind in a partition."""

    count: int
    cpus: int
    memory_mb: int
    gpus: int


@dataclass(frozen=True)
class Partition:
    """What a partition has, and how much of it a job may take."""

    name: str
    default: bool
    up: bool
    minutes: float | None
    """Longest time limit; None is without end."""
    most_nodes: int | None
    """Most nodes of a job; None: all."""
    nodes: tuple[Nodes, ...]


def parse(text: str) -> dict[str, Partition]:
    """Partitions by name, from sinfo's lines in `FORMAT`."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != FORMAT.count("|") + 1:
            continue
        name, state, limit, size, *rest = fields
        count, cpus, memory, gres = rest
        nodes = Nodes(_number(count), _number(cpus), _number(memory), gpus_in(gres))
        last = found.get(name.rstrip("*"))
        found[name.rstrip("*")] = Partition(
            name=name.rstrip("*"),
            default=name.endswith("*"),
            up=state == "up",
            minutes=minutes_of(limit),
            most_nodes=int(most) if (most := size.rpartition("-")[2]).isdecimal() else None,
            nodes=(*(last.nodes if last else ()), nodes),
        )
    return found


def minutes_of(limit: str) -> float | None:
    """Minutes of Slurm's `[days-]hours:minutes:seconds`, `minutes:seconds`; None for `infinite`."""
    days, dash, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in [*parts, *([days] if dash else [])]):
        return None
    hours, minutes, seconds = [0] * (3 - len(parts)) + [int(part) for part in parts]
    return (int(days) if dash else 0) * 1440 + hours * 60 + minutes + seconds / 60


def gpus_in(gres: str) -> int:
    """GPUs among a node's generic resources, e.g. 8 in `gpu:a100:8(S:0-1),shard:16`.

    A kind may begin with a digit, as in `gpu:3090:8` or `gpu:1g.10gb:7`.
    """
    counts = re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", gres)
    return sum(int(count) for count in counts)


def check_partition(cluster: ClusterConfig, partitions: dict[str, Partition]) -> Iterator[Check]:
    """The cluster's file against the partition it names, or against the default one."""
    if cluster.partition is None:
        chosen = [partition for partition in partitions.values() if partition.default]
    else:
        names = cluster.partition.split(",")  # Slurm takes the one that can begin first
        unknown = next((name for name in names if name not in partitions), None)
        if unknown is not None:
            yield Check("partition", "fail", f"there is no {unknown!r} here", _others(unknown, partitions))
            return
        chosen = [partitions[name] for name in names]
    answers = [list(_against(cluster, partition)) for partition in chosen]
    if answers:
        yield from min(answers, key=len)


def _others(name: str, partitions: dict[str, Partition]) -> str:
    close = difflib.get_close_matches(name, partitions, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"Set `partition`: {hint}There are {', '.join(partitions)}."


def _against(cluster: ClusterConfig, partition: Partition) -> Iterator[Check]:
    where = f"partition {partition.name}"
    if not partition.up:
        yield Check("partition", "fail", f"{where} is down", "Wait, or set another `partition`.")
    if partition.minutes is not None and cluster.time_minutes > partition.minutes:
        found = f"{where} allows {partition.minutes:g} minutes, time_minutes is {cluster.time_minutes}"
        advice = "Lower time_minutes: the job is requeued at the limit and goes on, so less is no harm."
        yield Check("time limit", "fail", found, advice)
    if cluster.nodes > _most(partition):
        yield Check("nodes", "fail", _too_many(cluster.nodes, partition), "Lower `nodes`.")
    yield from _per_node(cluster, partition)


def too_many_nodes(nodes: int, names: Iterable[str], partitions: dict[str, Partition]) -> str:
    """Why none of the partitions of a job gives it so many nodes; empty: one does, or it is not known."""
    chosen = [partitions.get(name) for name in names]
    known = [partition for partition in chosen if partition is not None]
    if not known or len(known) < len(chosen):
        return ""
    largest = max(known, key=_most)
    return _too_many(nodes, largest) if nodes > _most(largest) else ""


def _most(partition: Partition) -> int:
    """Nodes that a job can have there."""
    total = sum(nodes.count for nodes in partition.nodes)
    return total if partition.most_nodes is None else min(total, partition.most_nodes)


def _too_many(nodes: int, partition: Partition) -> str:
    most = _most(partition)
    return f"partition {partition.name} gives a job {most} nodes at most, {nodes} are asked for"


def _per_node(cluster: ClusterConfig, partition: Partition) -> Iterator[Check]:
    where = f"partition {partition.name}"
    asked = {
        "CPUs": cluster.tasks_per_node * cluster.cpus_per_task,
        "memory": round((cluster.memory_gb or 0) * 1024),
        "GPUs": cluster.gpus_per_node,
    }
    advice = {
        "CPUs": "Lower cpus_per_task (or tasks_per_node).",
        "memory": "Lower memory_gb: a node's own system needs some of what it has.",
        "GPUs": "Lower gpus_per_node (and tasks_per_node), or choose another partition.",
    }
    kinds = partition.nodes
    fitting = [nodes for nodes in kinds if all(_has(nodes)[what] >= asked[what] for what in asked)]
    total = sum(nodes.count for nodes in kinds)
    if sum(nodes.count for nodes in fitting) >= min(cluster.nodes, total):
        return
    short = {what: max((_has(nodes)[what] for nodes in kinds), default=0) for what in asked}
    named = [what for what in asked if short[what] < asked[what]]
    for what in named:
        found = f"a node of {where} has {short[what]} {_unit(what)}, {asked[what]} are asked for"
        yield Check(what, "fail", found, advice[what])
    if not named:
        found = f"{where} has not {cluster.nodes} nodes with all of {', '.join(_list(asked))}"
        yield Check("nodes", "fail", found, "Lower `nodes`, or what is asked of each.")


def _has(nodes: Nodes) -> dict[str, int]:
    return {"CPUs": nodes.cpus, "memory": nodes.memory_mb, "GPUs": nodes.gpus}


def _unit(what: str) -> str:
    return "MiB of memory" if what == "memory" else what


def _list(asked: dict[str, int]) -> list[str]:
    return [f"{count} {_unit(what)}" for what, count in asked.items() if count]


def _number(text: str) -> int:
    digits = re.match(r"\d+", text)  # `16+` where nodes of a line differ
    return int(digits[0]) if digits else 0
