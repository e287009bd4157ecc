"""What writing a checkpoint in the background costs the training beside it.

ResNet-18's share of tensors: 47 MB of parameters twice (online and target), Adam's 94 MB. The main thread
does nothing but look at the clock, so that every moment in which the writer holds the interpreter shows
as a gap; the longest gap is what one step could be held up by, the sum what the whole write takes away.
"""

import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from form import Figure, report
from safetensors.torch import save_file

from hvc.base.storage import sha256_file
from hvc.pretrain.checkpoints.checkpoint import newest
from hvc.pretrain.checkpoints.saver import Saver, Snapshot
from hvc.pretrain.recipe import CheckpointConfig
from hvc.pretrain.weights.encoder_file import metadata_of

TENSORS, NUMBERS = 62, 190_000  # about 47 MB
NOTICED = 0.0055  # seconds: just above the interpreter's switch interval


def main() -> None:
    """Write with ours and with the library's writer, each beside a thread that watches the clock."""
    torch.set_num_threads(1)
    made = snapshot()
    groups = (made.model, made.optimizer, made.encoder if isinstance(made.encoder, dict) else {})
    megabytes = sum(t.numel() * 4 for group in groups for t in group.values()) / 1e6
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        place, other = Path(folder, "checkpoints"), Path(folder, "library")
        other.mkdir()

        def ours() -> None:
            with Saver(str(place), CheckpointConfig(), pinned=set, committed=lambda _: None) as saver:
                saver.save(made)

        def library() -> None:
            for number, group in enumerate(groups):
                save_file(group, other / str(number))
                sha256_file(other / str(number))

        ours()  # once to warm up
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds, longest, lost = watched(ours)
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        _, their_longest, their_lost = watched(library)
        start = time.perf_counter()
        assert newest(str(place)) is not None
        found = time.perf_counter() - start
    note = f"{megabytes:.0f} MB, one core watching the clock"
    report(
        "checkpoint",
        [
            Figure("checkpoint.write_seconds", seconds, "s", note=f"{note}; hashed, flushed to disk"),
            Figure("checkpoint.longest_stall", 1e3 * longest, "ms", asked="< 20", note=note),
            Figure("checkpoint.stalls", 1e3 * lost, "ms", note="sum of those over 5.5 ms"),
            Figure(
                "checkpoint.longest_stall_library", 1e3 * their_longest, "ms", note="safetensors' writer"
            ),
            Figure("checkpoint.stalls_library", 1e3 * their_lost, "ms", note="the same sum"),
            Figure("checkpoint.memory", memory, "MB", asked="< 40", note="peak beside the snapshot"),
            Figure("checkpoint.verify_seconds", found, "s", note="finding the newest, all hashes checked"),
        ],
        packages=("torch", "safetensors"),
    )


def snapshot() -> Snapshot:
    """Random tensors of the real sizes."""

    def some(prefix: str) -> dict[str, torch.Tensor]:
        return {f"{prefix}.{n}": torch.randn(NUMBERS) for n in range(TENSORS)}

    model, optimizer = some("online") | some("target"), some("exp_avg") | some("exp_avg_sq")
    trunk = {name: value for name, value in model.items() if name.startswith("online")}
    buffers = [{"rng/torch": torch.get_rng_state()}]
    state = {"world_size": 1}
    return Snapshot(1, model, optimizer, buffers, trunk, metadata_of("resnet18", 1), state)


def watched(work: Callable[[], None]) -> tuple[float, float, float]:
    """Seconds that `work` takes in a thread, this thread's longest stall meanwhile, and all its stalls.

    A stall is a gap less the time for which the kernel had this thread wait for a free core: other
    processes of the machine must not count.
    """
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    thread = threading.Thread(target=run)
    longest = total = 0.0
    with Path("/proc/thread-self/schedstat").open("rb") as file:

        def queued() -> float:
            return int(os.pread(file.fileno(), 80, 0).split()[1]) / 1e9

        start = last = time.perf_counter()
        delay = queued()
        thread.start()
        while not done.is_set():
            now = time.perf_counter()
            if now - last > NOTICED:
                stall = now - last - (queued() - delay)
                longest, total = max(longest, stall), total + max(stall, 0.0)
            last, delay = now, queued()
        seconds = time.perf_counter() - start
    thread.join()
    return seconds, longest, total


if __name__ == "__main__":
    main()
