"""Proof that shards are plain WebDataset tars: the stock library reads them, in a process of its own."""

import hashlib
import json
import subprocess
import sys

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import FolderStore, Store
from hvc.data_prep.index import ShardIndex
from hvc.data_prep.manifest import Shard
from hvc.data_prep.peek import load_index
from hvc.data_prep.verify import Problem

# webdataset imports torch, which data preparation does without.
_PROGRAM = """
import hashlib, json, sys, webdataset
for line in sys.stdin:
    count, digest = 0, hashlib.sha256()
    for sample in webdataset.WebDataset(json.loads(line), shardshuffle=False, nodesplitter=None):
        names = sorted(name for name in sample if not name.startswith("__"))
        sizes = [len(sample[name]) for name in names]
        digest.update(json.dumps([sample["__key__"], names, sizes]).encode())
        count += 1
    print(json.dumps([count, digest.hexdigest()]), flush=True)
"""


def check_stock(store: Store, shards: tuple[Shard, ...]) -> list[Problem]:
    """Shards whose samples stock webdataset does not read as the index has them."""
    if not isinstance(store, FolderStore):
        raise UsageError(f"{store.address}: stock webdataset reads folders here; copy the dataset first")
    paths = "".join(json.dumps(store.where(shard.path)) + "\n" for shard in shards)
    command = [sys.executable, "-c", _PROGRAM]
    done = subprocess.run(command, input=paths, capture_output=True, text=True, check=False)
    answers = done.stdout.splitlines()
    problems = []
    for shard, answer in zip(shards, answers, strict=False):
        count, digest = json.loads(answer)
        if digest != _digest(load_index(store, shard)):
            what = f"stock webdataset reads {count} samples, other than the {shard.samples} of the index"
            problems.append(Problem(shard.path, what))
    if len(answers) < len(shards):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if not answers and "webdataset" in last:
            raise HvcError(f"stock webdataset does not start: {last}")
        problems.append(Problem(shards[len(answers)].path, f"stock webdataset fails: {last}"))
    return problems


def _digest(index: ShardIndex) -> str:
    digest = hashlib.sha256()
    for i in range(len(index)):
        members = index.members(i)
        names = sorted(members)
        sizes = [members[name].length for name in names]
        digest.update(json.dumps([index.key(i), names, sizes]).encode())
    return digest.hexdigest()
