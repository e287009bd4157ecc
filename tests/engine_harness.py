"""Training steps by the engine, and the same by plain PyTorch, in processes of their own."""

import multiprocessing
import os
import queue
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from hvc.pretrain.model.ema import EmaTarget
from hvc.pretrain.model.network import OnlineNetwork, TargetNetwork
from hvc.pretrain.model.pairs import find_pairs
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.training.processes import Place, free_port

Tensors = dict[str, Tensor]
STEPS = 6


def inputs(step: int, batch: int = 4, size: int = 64) -> tuple[list[Tensor], list[Tensor]]:
    """Two views [batch, 3, size, size] and their boxes [batch, 4], overlapping."""
    generator = torch.Generator().manual_seed(100 + step)
    views = [torch.randn(batch, 3, size, size, generator=generator) for _ in range(2)]
    corners = [torch.rand(batch, 2, generator=generator) * 0.2 for _ in range(2)]
    return views, [torch.cat([corner, corner + 0.7], 1) for corner in corners]


def networks(seed: int = 0) -> tuple[OnlineNetwork, EmaTarget]:
    torch.manual_seed(seed)
    online = OnlineNetwork().train()
    return online, EmaTarget(TargetNetwork(online), STEPS)


def bare_steps(
    steps: int = STEPS,
    *,
    micro: int = 1,
    clip: float | None = None,
    rate: Callable[[int], float] | None = None,
) -> tuple[list[float], list[float], Tensors]:
    """Losses, gradient norms and final tensors of plain PyTorch: no engine, unfused Adam, no flags."""
    online, ema = networks()
    optimiser = torch.optim.Adam(online.parameters(), lr=1e-3)
    losses, norms = [], []
    for step in range(steps):
        views, boxes = inputs(step)
        ema.update(online.ema_source())
        optimiser.zero_grad()
        total = 0.0
        for part in torch.arange(len(views[0])).chunk(micro):
            own, places = [view[part] for view in views], [box[part] for box in boxes]
            size = own[0].shape[-1] // 8
            keys = [ema.network(view) for view in own]
            loss = online(own, find_pairs((places[0], places[1]), size, size), keys).total
            (loss * len(part) / len(views[0])).backward()
            total += loss.item() * len(part) / len(views[0])
        norm = torch.nn.utils.clip_grad_norm_(online.parameters(), clip or float("inf"))
        for group in optimiser.param_groups:
            group["lr"] = rate(step) if rate else 1e-3
        optimiser.step()
        losses.append(total)
        norms.append(float(norm))
    return losses, norms, final(online, ema)


def final(online: OnlineNetwork, ema: EmaTarget) -> Tensors:
    tensors = online.state_dict() | ema.network.state_dict()
    return {name: value.detach().clone() for name, value in tensors.items()}


def in_processes(world_size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`work(place, *arguments)` in `world_size` new processes; their results in the order of ranks."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    port = free_port()
    processes = [
        context.Process(target=_run, args=(rank, world_size, port, results, work, arguments))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(_next(results, processes) for _ in processes)
    finally:
        for process in processes:
            process.join(60)
            if process.is_alive():
                process.kill()
    for value in found.values():
        assert not isinstance(value, str), value
    return [found[rank] for rank in range(world_size)]


def _next(results: Any, processes: list[Any]) -> tuple[int, Any]:
    for _ in range(300):
        try:
            answer: tuple[int, Any] = results.get(timeout=1)
            return answer
        except queue.Empty:
            assert any(process.is_alive() for process in processes), "a process died without a word"
    raise AssertionError("no result in five minutes")


def _run(rank: int, world_size: int, port: int, results: Any, work: Any, arguments: Any) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    os.environ.update(LOCAL_WORLD_SIZE=str(world_size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    try:
        answer = work(Place(rank, world_size, rank, world_size), *arguments)
        # As numpy: tensors in a queue live only as long as the process that sent them.
        results.put((rank, _plain(answer)))
    except BaseException:  # noqa: BLE001 (whatever it is, the test shall say it)
        results.put((rank, traceback.format_exc()))


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def engine_steps(
    place: Place, options: dict[str, Any], steps: int = STEPS
) -> tuple[list[float], list[float], Tensors]:
    """The same steps through DeepSpeed: each rank takes its slice of every batch.

    In the bare form's memory format, unless told otherwise: others round otherwise.
    """
    from hvc.pretrain.data.order import rank_slice
    from hvc.pretrain.training.engine import Engine
    from hvc.pretrain.training.ranks import Ranks
    from hvc.pretrain.training.schedule import learning_rate

    engine_options = {"channels_last": False} | options.get("engine", {})
    config = TrainConfig.parse({"data": "x", **options, "engine": engine_options})
    device = torch.device("cpu")
    ranks = Ranks(place, device, timedelta(minutes=5))
    with ranks.together():
        online, ema = networks()
        engine = Engine(online, config, device)
        losses, norms = [], []
        for step in range(steps):
            views, boxes = inputs(step)
            own = rank_slice(len(views[0]), place.rank, place.world_size)
            views, boxes = [view[own] for view in views], [box[own] for box in boxes]
            ema.update(online.ema_source())
            total = 0.0
            for part in torch.arange(len(views[0])).chunk(config.engine.accumulate):
                size = views[0].shape[-1] // 8
                keys = [ema.network(view[part]) for view in views]
                pairs = find_pairs((boxes[0][part], boxes[1][part]), size, size)
                loss = engine.forward([view[part] for view in views], pairs, keys).total
                engine.backward(loss * len(part) / len(views[0]))
                total += loss.item() * len(part) / len(views[0])
            engine.step(learning_rate(config, step, steps))
            losses.append(float(ranks.sum_over_ranks(torch.tensor(total))) / place.world_size)
            norms.append(float(engine.optimiser.norm))
        return losses, norms, final(online, ema)
