"""What may be compared with what: entries in groups of one benchmark, one protocol and one set of files.

Figures of two groups are never ranked together. Published figures join the groups of a whole benchmark with
its usual protocol, marked as published, for their protocols are their own.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from hvc.base.errors import UsageError
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.leaderboard.published import PUBLISHED, SEQUENCES, Published, figures_for, headline_of
from hvc.evaluation.metrics.measures import MAIN, finite

UNKNOWN = "unknown"
"""Digest of the files of an evaluation whose report is gone."""
_SHORT = 8


@dataclass(frozen=True)
class Picture:
    """A picture at MLflow."""

    run_id: str
    root: str
    """Address of the run's artifacts."""
    path: str
    """Below it."""
    name: str


@dataclass(frozen=True)
class Entry:
    """One method in one group."""

    kind: Literal["run", "baseline", "published"]
    name: str
    scores: dict[str, float]
    """Percent, at `step`."""
    step: int | None = None
    """The best one evaluated; the newest of equal ones."""
    last_step: int | None = None
    last: float | None = None
    """The headline at the last step evaluated."""
    steps: int = 1
    """How many were evaluated."""
    history: tuple[tuple[int, float], ...] = ()
    """Step and headline of all of them."""
    run_id: str | None = None
    experiment: str = ""
    state: str = ""
    evaluated: float | None = None
    """Seconds since 1970."""
    checkpoint: str = ""
    remark: str = ""
    """What has to be said: source and protocol of a published figure, a second trunk."""
    report: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """`per_sequence`, `per_object`, `curves` of the step."""
    pictures: tuple[Picture, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Group:
    """Entries that may be compared, best first; those without a finite headline last."""

    benchmark: str
    preset: str
    """The protocol's name; `-subset-` in it: some sequences only. Empty: published figures alone."""
    digest: str
    """Of frames, masks and annotations."""
    headline: str
    sequences: int
    protocol: dict[str, Any]
    entries: tuple[Entry, ...]

    @property
    def whole(self) -> bool:
        """Whether all of the benchmark's sequences are scored, as in published figures."""
        return self.sequences == SEQUENCES.get(self.benchmark)

    @property
    def usual(self) -> bool:
        """Whether the protocol is the one that the benchmark has unless another is asked for."""
        return self.benchmark in BENCHMARKS and self.preset == BENCHMARKS[self.benchmark].preset

    @property
    def measures(self) -> list[str]:
        """Measures to show, the headline first."""
        known = {name for entry in self.entries for name in entry.scores}
        return [self.headline, *(name for name in MAIN if name in known and name != self.headline)]

    @property
    def title(self) -> str:
        """What all entries have in common, in words."""
        if not self.preset:
            return f"{self.benchmark} · published figures, each with a protocol of its own"
        count = SEQUENCES.get(self.benchmark)
        of = f" of {count}" if count and not self.whole else ""
        plural = "" if self.sequences == 1 and not of else "s"
        words = [self.benchmark, f"protocol {self.preset}", f"data {self.digest[:_SHORT]}"]
        return " · ".join([*words, f"{self.sequences}{of} sequence{plural}"] if self.sequences else words)


@dataclass(frozen=True)
class Unscored:
    """A run without any score."""

    name: str
    run_id: str
    experiment: str
    state: str
    started: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Board:
    """All groups, those of a benchmark together, and the runs that are in none."""

    groups: tuple[Group, ...]
    unscored: tuple[Unscored, ...]

    def values(self) -> dict[str, Any]:
        """As plain data for JSON, without reports; what is not finite is null."""
        groups = [
            {
                **{name: getattr(group, name) for name in ("benchmark", "preset", "headline", "sequences")},
                "data_digest": group.digest,
                "whole": group.whole,
                "protocol": group.protocol,
                "entries": [_plain(entry) for entry in group.entries],
            }
            for group in self.groups
        ]
        return {"groups": groups, "unscored": [asdict(run) for run in self.unscored]}


@dataclass(frozen=True)
class Measured:
    """An entry, and the group that it belongs to."""

    entry: Entry
    benchmark: str
    preset: str
    digest: str
    headline: str
    sequences: int
    protocol: dict[str, Any] = field(default_factory=dict)


def board_of(
    measured: Iterable[Measured],
    unscored: Iterable[Unscored],
    benchmark: str | None = None,
    published: bool = True,
) -> Board:
    """Groups of what was measured, with the published figures that belong to them.

    Args:
        measured: in any order.
        unscored: runs without a score, shown as they come.
        benchmark: only this one; by default all.
        published: also the published figures of benchmarks on which nothing was measured.
    """
    chosen = [one for one in measured if benchmark in (None, one.benchmark)]
    members: dict[tuple[str, str, str, int], list[Measured]] = {}
    for one in chosen:
        members.setdefault(_key(one), []).append(one)
    groups = [_group(members[key]) for key in sorted(members)]
    joined = {group.benchmark for group in groups if group.whole and group.usual}
    wanted = {figure.benchmark for figure in PUBLISHED if benchmark in (None, figure.benchmark)}
    here = {group.benchmark for group in groups}
    alone = [name for name in wanted - joined if published or name in here or benchmark is not None]
    groups += [_published_group(name) for name in alone]
    order = list(SEQUENCES)

    def place(group: Group) -> tuple[int, str, bool, bool, bool, str, str]:
        known = order.index(group.benchmark) if group.benchmark in order else len(order)
        rest = not group.preset, not group.whole, not group.usual, group.preset, group.digest
        return known, group.benchmark, *rest

    return Board(tuple(sorted(groups, key=place)), tuple(unscored))


def need_benchmark(name: str | None, measured: Iterable[Measured]) -> None:
    """UsageError unless something was measured on a benchmark of this name, or could be."""
    known = list(dict.fromkeys([*SEQUENCES, *sorted({one.benchmark for one in measured})]))
    if name is not None and name not in known:
        raise UsageError(f"no benchmark {name!r}; there are: {', '.join(known)}")


def _key(one: Measured) -> tuple[str, str, str, int]:
    return one.benchmark, one.preset, one.digest, one.sequences


def _group(members: Sequence[Measured]) -> Group:
    first = members[0]
    group = Group(*_key(first)[:3], first.headline, first.sequences, first.protocol, ())
    entries = [one.entry for one in members]
    if group.whole and group.usual:
        entries += [_published_entry(figure) for figure in figures_for(first.benchmark)]
    return replace(group, entries=ranked(entries, first.headline))


def _published_group(benchmark: str) -> Group:
    entries = tuple(_published_entry(figure) for figure in figures_for(benchmark))
    return Group(benchmark, "", "", headline_of(benchmark), SEQUENCES[benchmark], {}, entries)


def ranked(entries: Iterable[Entry], headline: str) -> tuple[Entry, ...]:
    """Best first; of equal ones the measured before the published; without a finite headline last."""

    def place(entry: Entry) -> tuple[float, bool, str, str]:
        value = entry.scores.get(headline, math.nan)
        finite = -value if math.isfinite(value) else math.inf
        return finite, entry.kind == "published", entry.name, entry.run_id or ""

    return tuple(sorted(entries, key=place))


def _published_entry(figure: Published) -> Entry:
    trained = f"on {figure.trained_on}" if figure.trained_on else ""
    remark = "; ".join(filter(None, (f"{figure.backbone} {trained}".strip(), figure.remark, figure.source)))
    return Entry("published", figure.method, figure.scores, remark=remark)


def _plain(entry: Entry) -> dict[str, Any]:
    values = {key: value for key, value in vars(entry).items() if key not in ("report", "pictures")}
    plain: dict[str, Any] = finite(values | {"per_sequence": entry.report.get("per_sequence", {})})
    return plain
