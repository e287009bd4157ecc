"""Which record goes into which shard, and how: decided by the catalog and the options alone."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hvc.data_prep import plan
from hvc.data_prep.catalog import Catalog
from hvc.data_prep.commit import Duplicate
from hvc.data_prep.images import Gate
from hvc.data_prep.manifest import Made
from hvc.data_prep.tree import printable
from hvc.data_prep.writer import Task


class Blueprint:
    """The shards of a dataset before they are made."""

    def __init__(self, catalog: Catalog, made: Made, same_as: NDArray[np.int64] | None = None) -> None:
        """`same_as` int64 [records]: the earlier record that one is a duplicate of, else -1."""
        self._catalog, self._same_as = catalog, same_as
        self._gate = Gate(made.check, made.max_pixels, made.max_side, made.quality)
        kept = np.arange(len(catalog)) if same_as is None else np.flatnonzero(same_as < 0)
        self._plan = plan.plan_shards(
            len(catalog),
            int(catalog.sizes[kept].sum()),
            made.target_mb,
            made.seed,
            made.order,
            made.min_shards,
            catalog.group_ids,
            kept,
        )

    def __len__(self) -> int:
        """Number of shards."""
        return len(self._plan)

    def numbers(self, shard: int) -> list[int]:
        """Numbers, in the catalog, of a shard's records."""
        return self._plan.items(shard).tolist()

    def task(self, shard: int) -> Task:
        """A whole shard."""
        return self.task_of(plan.shard_name(shard), self.numbers(shard))

    def task_of(self, name: str, numbers: Sequence[int]) -> Task:
        """A shard of any records."""
        items = tuple((number, self._catalog.record(number)) for number in numbers)
        return Task(name, items, self._catalog.trees, self._gate, self._catalog.classes)

    def duplicates(self) -> Iterator[Duplicate]:
        """Each record that is left out, and the one that it equals."""
        if self._same_as is None:
            return
        catalog = self._catalog
        for number in np.flatnonzero(self._same_as >= 0).tolist():
            other = int(self._same_as[number])
            paths: Duplicate = {
                "path": printable(catalog.path(number)),
                "same_as": printable(catalog.path(other)),
            }
            if len(catalog.trees) > 1:
                paths |= {"input": catalog.input_of(number), "same_as_input": catalog.input_of(other)}
            yield paths
