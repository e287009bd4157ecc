"""One training step on the device there is: images/s, memory, and where the time goes.

Synthetic views, no loader, no DeepSpeed: the arithmetic alone. On a GPU at the paper's size (256 px,
batch 128, fp32 and bf16); on a CPU at the size of `configs/small.yaml`.
"""

import time
from contextlib import nullcontext

import torch
from form import Figure, report

from hvc.pretrain.ema import EmaTarget
from hvc.pretrain.network import OnlineNetwork, TargetNetwork
from hvc.pretrain.pairs import find_pairs

WARM_UP, STEPS = 1, 3


def main() -> None:
    """Time both precisions on a GPU, fp32 on a CPU."""
    if torch.cuda.is_available():
        figures = measure(torch.device("cuda"), 256, 128, bf16=False)
        figures += measure(torch.device("cuda"), 256, 128, bf16=True)
    else:
        figures = measure(torch.device("cpu"), 96, 16, bf16=False)
    report("train", figures, packages=("torch", "deepspeed"))


def measure(device: torch.device, size: int, batch: int, *, bf16: bool) -> list[Figure]:
    """Images/s of whole steps, the share of forward passes, and the peak memory on a GPU."""
    torch.manual_seed(0)
    online = OnlineNetwork().to(device)
    ema = EmaTarget(TargetNetwork(online).to(device), total_steps=1000)
    optimiser = torch.optim.Adam(online.parameters(), lr=1e-3)
    views = [torch.randn(batch, 3, size, size, device=device) for _ in range(2)]
    corners = [torch.rand(batch, 2) * 0.3 for _ in range(2)]
    first, second = (torch.cat([corner, corner + 0.6], dim=1) for corner in corners)
    passes: list[float] = []
    steps: list[float] = []
    for _ in range(WARM_UP + STEPS):
        start = clock(device)
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            ema.update(online.ema_source())
            keys = [ema.network(view) for view in views]
            pairs = find_pairs((first, second), size // 8, size // 8).to(device)
            loss = online(views, pairs, keys).total
        passes.append(clock(device) - start)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps.append(clock(device) - start)
    step, forward = (sum(times[WARM_UP:]) / STEPS for times in (steps, passes))
    kind = f"{device.type}.{'bf16' if bf16 else 'fp32'}"
    note = f"{size} px, batch {batch}, {torch.get_num_threads()} threads" * (device.type == "cpu")
    note = note or f"{size} px, batch {batch}"
    figures = [
        Figure(f"train.{kind}.images_per_second", batch / step, "images/s", note=note),
        Figure(f"train.{kind}.forward_share", forward / step, "", "the whole step"),
    ]
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
        figures.append(Figure(f"train.{kind}.peak_gib", peak, "GiB", note=note))
    return figures


def clock(device: torch.device) -> float:
    """Seconds, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
