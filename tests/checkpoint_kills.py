"""A process that saves checkpoints without end, killed again and again, and what is found afterwards.

Run by itself (`python checkpoint_kills.py ADDRESS TRIALS SEED SECONDS`), because it forks: a process that
has imported torch once begins each trial in milliseconds, and a pytest with its threads is none to fork.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from checkpoint_data import assert_intact, snapshot

from hvc.pretrain.checkpoints.checkpoint import Checkpoint, clear_unfinished, complete_steps, newest
from hvc.pretrain.checkpoints.saver import Saver
from hvc.pretrain.recipe import CheckpointConfig

CONFIG = CheckpointConfig(keep=2, keep_every=50)


def work(address: str, note: int) -> None:
    """Clear, go on from the newest checkpoint, save for ever; tell the steps that count on `note`."""

    def committed(done: Checkpoint) -> None:
        os.write(note, f"{done.step}\n".encode())

    clear_unfinished(address)
    found = newest(address)
    step = found.step if found else 0
    with Saver(address, CONFIG, pinned=lambda: {3}, committed=committed) as saver:
        while True:
            step += 1
            saver.save(snapshot(step, size=3000))


def trial(address: str, seconds: float, patient: bool) -> tuple[int, str]:
    """Fork one, kill it after `seconds`: the last step that it told of, and how it ended.

    Args:
        patient: whether the time begins with its first step.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work(address, writing)
        except Exception as error:  # noqa: BLE001 (told to the parent)
            os.write(writing, f"error {error!r}\n".encode())
        finally:
            os._exit(1)
    os.close(writing)
    if patient:
        select.select([reading], [], [], 60)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().split("\n")
    assert os.WIFSIGNALED(status), lines
    told = [int(line) for line in lines if line.isdigit()]
    return (told[-1] if told else 0), lines[-1]


def state_of(address: str) -> str:
    """What the kill left: an unfinished checkpoint, or a deletion half done, or neither."""
    if address.startswith("s3://"):
        return "bucket"
    folders = [path for path in Path(address).glob("step-*") if not (path / "COMPLETE").exists()]
    steps = complete_steps(address)
    newer = [path for path in folders if not steps or path.name > f"step-{steps[-1]:08d}"]
    return "writing" if newer else "deleting" if folders else "between"


def main(address: str, trials: int, seed: int, longest: float) -> dict[str, int]:
    """All trials; AssertionError at the first checkpoint lost."""
    rng = random.Random(seed)
    last, ends = 0, {"writing": 0, "deleting": 0, "between": 0, "bucket": 0}
    for number in range(trials):
        told, _ = trial(address, rng.uniform(0, longest), rng.random() < 0.5)
        last = max(last, told)
        ends[state_of(address)] += 1
        found = newest(address)
        if last:
            assert found is not None, f"trial {number}: nothing is left of step {last}"
            assert found.step >= last, f"trial {number}: {found.step} is found, {last} was written"
        if found is not None:
            assert_intact(found, size=3000)
            last = found.step
            steps = complete_steps(address)
            promised = [step for step in (3, *range(50, last, 50)) if step <= last]
            assert set(promised) <= set(steps), f"trial {number}: {promised} should be in {steps}"
    return ends | {"steps": last}


if __name__ == "__main__":
    told = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    sys.stdout.write(json.dumps(told))
