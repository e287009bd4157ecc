"""The stage `shard`: images -> WebDataset shards, index files and a manifest.

read (list the inputs) -> plan (which image goes where) -> do (shards, in parallel, each once) ->
commit (the manifest). Killed at any moment and run again it goes on, and the result is the same
to the byte; until the manifest is there, there is no dataset.

With `part` set a run makes its share of the shards and commits nothing; a run without it, of the same
config otherwise, makes what is missing and finishes the dataset.
"""

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.base.storage import Store, open_store
from hvc.data_prep import plan, summary
from hvc.data_prep.blueprint import Blueprint
from hvc.data_prep.catalog import Catalog
from hvc.data_prep.commit import commit, fingerprint, in_order, read_rejects, same_dataset
from hvc.data_prep.dedupe import find_duplicates, hash_catalog
from hvc.data_prep.delivery import in_threads
from hvc.data_prep.lock import Turn
from hvc.data_prep.manifest import MANIFEST_NAME, Made, Manifest
from hvc.data_prep.pool import Workers, default_workers, spare_core
from hvc.data_prep.progress import Progress
from hvc.data_prep.shard_bar import ShardBar, shard_bar
from hvc.data_prep.shard_config import InputConfig, ShardConfig
from hvc.data_prep.sources import FrameOptions, build_catalog
from hvc.data_prep.writer import Rejected, ShardRecord, write_shard

__all__ = ["InputConfig", "ShardConfig", "run"]

_LOAD = ("hvc.data_prep.writer", "hvc.data_prep.decoding")
_EARLY_WORKERS = 4  # started while the inputs are listed; more only when there is work for them
_WAITING_PER_WORKER = 2  # finished shards in scratch space, waiting for their upload


def run(config: ShardConfig, stop: Stop, provenance: Provenance) -> Result:
    """Make the dataset or a part of it, or go on; one that is finished already is left as it is."""
    with Workers(config.workers or default_workers(), _LOAD) as workers:
        workers.warm_up(_EARLY_WORKERS)
        return _run(config, stop, workers, Turn(provenance.lineage, provenance.attempt))


def _run(config: ShardConfig, stop: Stop, workers: Workers, turn: Turn) -> Result:
    store = open_store(config.output)
    inputs = [(str(entry.source), entry.address) for entry in config.inputs]
    frames = FrameOptions(config.fps, config.stride)
    catalog = build_catalog(inputs, frozenset(config.extras), frames)
    draft = _draft(config, catalog)
    progress = Progress(store, fingerprint(draft), config.part, turn)
    if store.exists(MANIFEST_NAME) and (config.part is not None or progress.is_clean()):
        return _already_done(draft, store)  # nothing to write: it may be read-only
    with progress.alone():
        if store.exists(MANIFEST_NAME):
            result = _already_done(draft, store)
            progress.close()
            return result
        return _Sharding(config, catalog, draft, store, progress, workers, stop).go_on()


def _already_done(draft: Manifest, store: Store) -> Result:
    manifest = same_dataset(draft, store)
    figures = summary.report(manifest, read_rejects(manifest, store), store)
    return Result(Outcome.DONE, {**figures, "already_done": True})


def _draft(config: ShardConfig, catalog: Catalog) -> Manifest:
    """The manifest as far as it is known before any image is read."""
    return Manifest(
        name=config.dataset_name,
        source="+".join(dict.fromkeys(config.sources)),
        made=Made(
            sources=config.sources,
            order=config.order,
            seed=config.seed,
            target_mb=config.target_mb,
            min_shards=config.min_shards,
            max_pixels=config.max_pixels,
            check=config.check,
            max_side=config.max_side,
            quality=config.quality,
            dedupe=config.dedupe,
            extras=config.extras,
            frames=config.frames,
            pillow=version("pillow") if config.max_side or config.quality else None,
            input=catalog.digest(),
            hvc=version("hvc"),
        ),
        found=len(catalog),
        samples=0,
        rejected=0,
        shards=(),
        classes=catalog.classes,
    )


class _Sharding:
    """One run under way: we alone write to the output, or to our part of it."""

    def __init__(
        self,
        config: ShardConfig,
        catalog: Catalog,
        draft: Manifest,
        store: Store,
        progress: Progress,
        workers: Workers,
        stop: Stop,
    ) -> None:
        self._config, self._catalog, self._draft = config, catalog, draft
        self._store, self._progress = store, progress
        self._workers, self._stop = workers, stop
        self._rejects: list[Rejected] = []

    def go_on(self) -> Result:
        """Make what is missing; then, unless this is only a part, finish the dataset."""
        with shard_bar() as bar:
            same_as = self._same_as(bar)
            if same_as is None:
                return self._stopped({"dataset": self._store.address, "shards_done": 0})
            shards = Blueprint(self._catalog, self._draft.made, same_as)
            mine = [number for number in range(len(shards)) if self._config.makes(number)]
            records = self._make(shards, mine, bar)
        state = {"dataset": self._store.address, "shards_done": len(records), "shards": len(shards)}
        if len(records) < len(mine):
            return self._stopped(state)
        if self._config.part is not None:
            part = {"part": self._config.part, "parts": self._config.parts}
            then = {"rejected": len(self._rejects), "next": "after all parts, the command without --part"}
            return Result(Outcome.DONE, {**state, **part, **then})
        self._progress.still_ours()
        manifest = commit(self._draft, records, shards.duplicates(), self._store)
        self._progress.close()
        rejects = in_order(self._rejects)
        return Result(Outcome.DONE, summary.report(manifest, rejects, self._store))

    def _stopped(self, state: dict[str, Any]) -> Result:
        return Result(Outcome.STOPPED, {**state, "next": "the same command again goes on"})

    def _same_as(self, bar: ShardBar) -> NDArray[np.int64] | None:
        """For every record the earlier one that it equals, or -1; None if stopped while looking."""
        if not self._config.dedupe:
            return np.full(len(self._catalog), -1, np.int64)
        bar.begin("looking for duplicates", "images", len(self._catalog))
        turn = (self._config.part or 0) / self._config.parts
        hashes = hash_catalog(self._catalog, self._progress, self._workers, self._stop, bar.advance, turn)
        return None if hashes is None else find_duplicates(hashes)

    def _make(self, shards: Blueprint, mine: list[int], bar: ShardBar) -> list[ShardRecord]:
        """Records, in shard order, of those that are in place: not all of `mine` if stopped."""
        names = {plan.shard_name(number): number for number in mine}
        bar.begin("sharding", "shards", len(mine))
        finished = self._progress.finished(frozenset(names))
        bar.advance(len(finished))
        for record in finished.values():
            self._judge(record)
        missing = (shards.task(number) for name, number in names.items() if name not in finished)
        with self._progress.work_folder() as work:
            make = partial(write_shard, folder=work, thread=spare_core(self._workers))
            with closing(self._workers.run(make, missing, self._stop)) as made:
                deliver = partial(self._progress.deliver, work=work)
                most = self._workers.count * _WAITING_PER_WORKER
                records = in_threads(deliver, self._judged(made, bar), most)
        return sorted([*finished.values(), *records], key=lambda record: record.name)

    def _judged(self, made: Iterator[ShardRecord], bar: ShardBar) -> Iterator[ShardRecord]:
        for record in made:
            self._judge(record)
            bar.made(record)
            yield record

    def _judge(self, record: ShardRecord) -> None:
        """HvcError when there are too many rejects by now; a part leaves that to the last step."""
        self._rejects += record.rejects
        found = len(self._catalog)
        if self._config.part is None and len(self._rejects) > self._config.bad_allowed(found):
            raise _too_bad(self._config, self._rejects, found)


def _too_bad(config: ShardConfig, rejects: list[Rejected], found: int) -> HvcError:
    first = "".join(f"\n  {bad}" for bad in rejects[:10])
    more = f"\n  and {len(rejects) - 10} more" if len(rejects) > 10 else ""
    where = ", ".join(entry.address for entry in config.inputs)
    return HvcError(
        f"input {where}: {len(rejects)} or more of {found} images are bad, max_bad={config.max_bad} "
        f"allows {config.bad_allowed(found)}; repair or remove them, or raise max_bad:{first}{more}"
    )
