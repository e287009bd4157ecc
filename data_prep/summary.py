"""What a finished sharding run says of itself, to programs and to people."""

from collections import Counter
from typing import Any

from hvc.base.storage import Store
from hvc.data_prep.manifest import Manifest
from hvc.data_prep.writer import Rejected

_SHOWN = 5  # rejects that are named


def report(manifest: Manifest, rejects: list[Rejected], store: Store) -> dict[str, Any]:
    """A finished dataset in figures; `rejects` says why, and how often."""
    figures: dict[str, Any] = {
        "dataset": store.address,
        "digest": manifest.digest,
        "samples": manifest.samples,
        "found": manifest.found,
        "rejected": manifest.rejected,
        "duplicates": manifest.duplicates,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
    }
    if manifest.rejects is not None:
        figures["rejects"] = {
            "list": manifest.rejects.path,
            "reasons": reasons(rejects),
            "first": [str(bad) for bad in rejects[:_SHOWN]],
        }
    return figures


def reasons(rejects: list[Rejected]) -> dict[str, int]:
    """How often each kind of reason occurs, the most frequent first."""
    kinds = Counter(bad.reason.partition(":")[0] for bad in rejects)
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def lines(figures: dict[str, Any]) -> list[str]:
    """The report of a finished dataset as people read it."""
    told = [
        f"dataset: {figures['dataset']}" + (" (was finished already)" if "already_done" in figures else ""),
        f"digest: {figures['digest']}",
        f"{figures['found']} found = {figures['samples']} samples + {figures['rejected']} rejected + "
        f"{figures['duplicates']} duplicates",
        f"shards: {figures['shards']}, {figures['bytes'] / 1e6:.1f} MB",
    ]
    if "rejects" in figures:
        rejects = figures["rejects"]
        told.append(f"rejected, all listed in {rejects['list']}:")
        told += [f"  {count} x {kind}" for kind, count in rejects["reasons"].items()]
        told += ["the first of them:", *(f"  {line}" for line in rejects["first"])]
    return told
