"""A small stage for jobs on the test cluster: every step is an all_reduce, and the state a number."""

import atexit
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

from hvc.base.config import Config
from hvc.base.errors import UsageError
from hvc.base.stage import Outcome, Provenance, Result, Stop


class ToyConfig(Config):
    """How many steps, how slow, and where the state is."""

    folder: str
    steps: int = 5
    step_seconds: float = 0.0
    failing_rank: int = -1
    refused: bool = False
    save_every: int = 0
    deaf: bool = False
    dies_late: bool = False


def progress(config: ToyConfig) -> int:
    """The step that was saved last."""
    state = Path(config.folder) / "step"
    return int(state.read_text()) if state.exists() else 0


def run(config: ToyConfig, stop: Stop, provenance: Provenance) -> Result:
    """Count to `steps`, from where the last attempt saved."""
    if config.refused:
        raise UsageError("this config was told to be wrong")
    dist.init_process_group("gloo")
    state = Path(config.folder) / "step"
    first = int(state.read_text()) if state.exists() else 0
    _note(config, f"attempt {provenance.attempt} from {first}")
    _note(config, f"ranks {dist.get_world_size()}")
    for step in range(first, config.steps):
        if dist.get_rank() == config.failing_rank:
            raise OSError("this rank was told to fail")
        time.sleep(config.step_seconds)
        total = _sum(dist.get_rank() + 1.0)
        if _sum(float(stop())) > 0 and not config.deaf:
            return _leave(Outcome.STOPPED, state, step + 1, total)
        if config.save_every and dist.get_rank() == 0:
            state.write_text(str(step + 1))
        _note(config, f"step {step}")
    if config.dies_late and dist.get_rank() == 1:
        atexit.register(_die)
    return _leave(Outcome.DONE, state, config.steps, _sum(dist.get_rank() + 1.0), provenance)


def _leave(
    outcome: Outcome, state: Path, step: int, total: float, provenance: Provenance | None = None
) -> Result:
    if dist.get_rank() == 0:
        state.write_text(str(step))
    dist.barrier()
    dist.destroy_process_group()
    labels = provenance.labels if provenance else {}
    return Result(outcome, {"step": step, "sum": total, "rank": int(os.environ["RANK"]), **labels})


def _die() -> None:
    """As of a signal while Python ends; the other ranks have left by then."""
    time.sleep(3)
    os._exit(7)


def _sum(value: float) -> float:
    tensor = torch.tensor(value)
    dist.all_reduce(tensor)
    return float(tensor)


def _note(config: ToyConfig, line: str) -> None:
    """One line per event, by rank 0, for the test to wait on."""
    if dist.get_rank() == 0:
        with (Path(config.folder) / "events").open("a") as file:
            file.write(line + "\n")
