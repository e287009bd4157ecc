"""The stage `shard`: a folder of images -> WebDataset shards, index files and a manifest.

read (list the input) -> plan (which image goes where) -> do (shards, in parallel, each once) ->
commit (the manifest). Killed at any moment and run again it goes on, and the result is the same
to the byte; until the manifest is there, there is no dataset.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from rich.console import Console
from rich.progress import Progress as ProgressBar

from hvc.base.config import Config
from hvc.base.errors import HvcError
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.base.storage import Store, open_store
from hvc.data_prep import plan
from hvc.data_prep.commit import commit, fingerprint, same_dataset
from hvc.data_prep.images import MAX_PIXELS
from hvc.data_prep.manifest import MANIFEST_NAME, Made, Manifest
from hvc.data_prep.pool import default_workers, in_processes
from hvc.data_prep.progress import Progress
from hvc.data_prep.sources import LISTERS, Listing
from hvc.data_prep.writer import Rejected, ShardRecord, Task

_TRAINING_LIMIT = 178_956_970  # pixels from which on Pillow refuses to open a file, also in training


def _not_empty(address: str) -> str:
    if not address.strip():
        raise ValueError("is empty; give a folder or s3://bucket/prefix")
    return address


def _count_or_share(value: Any) -> int | float:
    # Checked as one: a union would name its members, which nobody has written, in error messages.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"give a number or a share (got {value!r})")
    if isinstance(value, float) and not 0 <= value <= 1:
        raise ValueError(f"a share is between 0.0 and 1.0 (got {value!r}); write a number without a point")
    if value < 0:
        raise ValueError(f"a number of images is not negative (got {value})")
    return value


class ShardConfig(Config):
    """What `hvc shard` needs to know."""

    source: Literal["folder", "imagenet"] = "folder"
    input: str
    """Folder of images."""
    output: Annotated[str, AfterValidator(_not_empty)]
    """Folder or s3://bucket/prefix of the dataset."""
    name: str | None = None
    """Name of the dataset; by default the last part of `input`."""
    order: plan.Order = "shuffled"
    seed: int = Field(0, ge=0)
    target_mb: float = Field(100, gt=0, allow_inf_nan=False)
    """Size of a shard, in 10^6 bytes."""
    min_shards: int = Field(1, ge=1)
    max_pixels: int = Field(MAX_PIXELS, gt=0, le=_TRAINING_LIMIT)
    """Images of more width x height are rejected."""
    max_bad: Annotated[int | float, BeforeValidator(_count_or_share)] = 0.01
    """How many images may be rejected: a number, or (with a decimal point) a share of all found."""
    workers: int = Field(0, ge=0)
    """Processes; 0 = one per CPU."""

    def bad_allowed(self, found: int) -> int:
        """The largest number of rejects among `found` images with which there will be a dataset."""
        return self.max_bad if isinstance(self.max_bad, int) else int(self.max_bad * found)


def run(config: ShardConfig, stop: Stop, provenance: Provenance) -> Result:  # noqa: ARG001 (the contract)
    """Make the dataset, or go on with it; a dataset that is finished already is left as it is."""
    root = Path(config.input).absolute()
    listing = LISTERS[config.source](root)
    draft = _draft(config, listing)
    store = open_store(config.output)
    progress = Progress(store, fingerprint(draft))
    if store.exists(MANIFEST_NAME) and progress.is_clean():  # nothing to write: it may be read-only
        return _already_done(draft, store)
    with progress.alone():
        if store.exists(MANIFEST_NAME):
            result = _already_done(draft, store)
            progress.close()
            return result
        return _go_on(config, draft, _tasks(config, listing, root), store, progress, stop)


def _already_done(draft: Manifest, store: Store) -> Result:
    manifest = same_dataset(draft, store)
    return Result(Outcome.DONE, {**_report(manifest, store), "already_done": True})


def _go_on(
    config: ShardConfig,
    draft: Manifest,
    tasks: Sequence[Task],
    store: Store,
    progress: Progress,
    stop: Stop,
) -> Result:
    progress.begin()
    records = _make_shards(config, tasks, progress, stop)
    if len(records) < len(tasks):
        state = {"dataset": store.address, "shards_done": len(records), "shards": len(tasks)}
        return Result(Outcome.STOPPED, state)
    manifest = commit(draft, sorted(records, key=lambda record: record.name), store)
    progress.close()
    return Result(Outcome.DONE, _report(manifest, store))


def _draft(config: ShardConfig, listing: Listing) -> Manifest:
    """The manifest as far as it is known before any image is read."""
    return Manifest(
        name=config.name or Path(config.input).absolute().name,
        source=config.source,
        made=Made(
            order=config.order,
            seed=config.seed,
            target_mb=config.target_mb,
            min_shards=config.min_shards,
            max_pixels=config.max_pixels,
            input=listing.digest(),
            hvc=version("hvc"),
        ),
        found=len(listing.items),
        samples=0,
        rejected=0,
        shards=(),
        classes=listing.classes,
    )


def _tasks(config: ShardConfig, listing: Listing, root: Path) -> list[Task]:
    items = listing.items
    shards = plan.plan_shards(
        len(items),
        sum(item.size for item in items),
        config.target_mb,
        config.seed,
        config.order,
        config.min_shards,
    )
    return [
        Task(
            plan.shard_name(i), root, tuple((int(n), items[n]) for n in shards.items(i)), config.max_pixels
        )
        for i in range(len(shards))
    ]


def _make_shards(
    config: ShardConfig, tasks: Sequence[Task], progress: Progress, stop: Stop
) -> list[ShardRecord]:
    """Records of the shards that are in place, fewer than tasks if `stop()` came in between."""
    found = sum(len(task.items) for task in tasks)
    records = []
    rejects: list[Rejected] = []
    workers = config.workers or default_workers()
    with progress.work_folder() as work, _bar(len(tasks)) as advance:
        make = partial(progress.make, work=work)
        with closing(in_processes(make, tasks, workers, stop)) as made:
            for record in made:
                records.append(record)
                rejects += record.rejects
                if len(rejects) > config.bad_allowed(found):
                    raise _too_bad(config, rejects, found)
                advance()
    return records


def _too_bad(config: ShardConfig, rejects: list[Rejected], found: int) -> HvcError:
    first = "".join(f"\n  {bad.path}: {bad.reason}" for bad in rejects[:10])
    more = f"\n  and {len(rejects) - 10} more" if len(rejects) > 10 else ""
    return HvcError(
        f"input {config.input}: {len(rejects)} or more of {found} images are bad, max_bad={config.max_bad} "
        f"allows {config.bad_allowed(found)}; repair or remove them, or raise max_bad:{first}{more}"
    )


@contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar over shards on stderr, if somebody is looking; gives what advances it by one."""
    console = Console(stderr=True)
    with ProgressBar(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("sharding", total=total)
        yield lambda: bar.advance(task)


def _report(manifest: Manifest, store: Store) -> dict[str, Any]:
    return {
        "dataset": store.address,
        "digest": manifest.digest,
        "samples": manifest.samples,
        "found": manifest.found,
        "rejected": manifest.rejected,
        "duplicates": manifest.duplicates,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
    }
