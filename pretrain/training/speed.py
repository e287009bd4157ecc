"""Achieved FLOP/s, and what share of the device's peak that is (MFU)."""

import torch

from hvc.pretrain.model.cost import Cost
from hvc.pretrain.recipe import TrainConfig
from hvc.pretrain.training.peak import peak_tflops


class Speed:
    """Turns images/s into TFLOP/s; recomputed activations do not count as work done."""

    def __init__(self, config: TrainConfig, device: torch.device, cost: Cost | None) -> None:
        self.cost = cost
        self.peak = config.engine.peak_tflops
        if self.peak is None and device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            self.peak = peak_tflops(name, config.engine.precision)

    def figures(self, images_per_second: float, ranks: int) -> dict[str, float]:
        """`perf/tflops_per_device`, and `perf/mfu` in [0, 1] where the device's peak is known.

        Nothing where the cost is not known.
        """
        if self.cost is None:
            return {}
        achieved = images_per_second * self.cost.flops_per_image_step / ranks / 1e12
        values = {"perf/tflops_per_device": achieved}
        return values | {"perf/mfu": achieved / self.peak} if self.peak else values
