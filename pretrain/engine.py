"""DeepSpeed around the online network: set-up without compilers, and its state independent of ranks.

Parameters, buffers and Adam's state stay fp32 at every precision; bf16 is autocast for compute only
(whole-model bf16 would round away small EMA updates and BatchNorm statistics).
"""

from typing import Any

import torch
from torch import Tensor, nn

from hvc.base.errors import HvcError
from hvc.pretrain.processes import Place
from hvc.pretrain.ranks import import_deepspeed
from hvc.pretrain.recipe import TrainConfig

_STATE_KEYS = ("exp_avg", "exp_avg_sq")


def choose_device(wanted: str, place: Place) -> torch.device:
    """The device of this process: one GPU per local rank, or the CPU."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise HvcError("engine.device is cuda, but no GPU is visible here; use engine.device=cpu or auto")
    count = torch.cuda.device_count()
    if 1 < count <= place.local_rank:
        raise HvcError(
            f"local rank {place.local_rank} finds {count} GPUs; start one process per GPU, or use "
            "engine.device=cpu"
        )
    # One visible GPU: the launcher gave each process its own (NCCL refuses to share one).
    device = torch.device("cuda", place.local_rank if count > 1 else 0)
    torch.cuda.set_device(device)
    return device


def deepspeed_config(config: TrainConfig) -> dict[str, Any]:
    """What DeepSpeed is told. The micro batch is nominal: batches are planned by us."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": config.engine.zero_stage},
        "torch_autocast": {"enabled": config.engine.precision == "bf16", "dtype": "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 60,
    }


class Engine:
    """One rank's part of the distributed online network and its optimiser."""

    def __init__(self, network: nn.Module, config: TrainConfig, device: torch.device) -> None:
        deepspeed = import_deepspeed(device)
        self.network, self.device, self._zero_stage = network, device, config.engine.zero_stage
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        self._engine, self._optimiser, _, _ = deepspeed.initialize(
            model=network, optimizer=optimiser, config=deepspeed_config(config)
        )
        self._adam = optimiser

    def forward(self, *inputs: Any) -> Any:
        """The network's forward pass under the engine's precision."""
        return self._engine(*inputs)

    def backward_and_step(self, loss: Tensor) -> None:
        """Gradients averaged over the ranks, then one optimiser step."""
        self._engine.backward(loss)
        self._engine.step()

    def adopt_parameters(self) -> None:
        """After the network's parameters were replaced: bring ZeRO's own copy of them up to date."""
        if self._zero_stage == 0:
            return
        from deepspeed.utils import safe_set_full_fp32_param

        for parameter in self.network.parameters():
            safe_set_full_fp32_param(parameter, parameter.detach().clone())

    def optimiser_state(self) -> dict[str, Tensor]:
        """Adam's whole state as `NAME/exp_avg`, `NAME/exp_avg_sq`, `step`; every rank must call it."""
        from deepspeed.utils import safe_get_full_optimizer_state

        tensors = {}
        for name, parameter in self.network.named_parameters():
            for key in _STATE_KEYS:
                if self._zero_stage == 0:
                    value = self._adam.state[parameter][key]
                else:
                    value = safe_get_full_optimizer_state(parameter, key)
                tensors[f"{name}/{key}"] = value.detach().cpu().clone()
        steps = [state["step"] for state in self._adam.state.values()]
        tensors["step"] = steps[0].detach().cpu().float().clone()
        return tensors

    def load_optimiser_state(self, tensors: dict[str, Tensor]) -> None:
        """Take Adam's whole state back, at any number of ranks and ZeRO stage 0 or 1."""
        from deepspeed.utils import safe_set_full_optimizer_state

        self._begin_adam_state(tensors["step"])
        for name, parameter in self.network.named_parameters():
            for key in _STATE_KEYS:
                value = tensors[f"{name}/{key}"].to(self.device)
                if self._zero_stage == 0:
                    self._adam.state[parameter][key].copy_(value)
                else:
                    safe_set_full_optimizer_state(parameter, value, key)

    def _begin_adam_state(self, step: Tensor) -> None:
        # Adam makes its state in the first step; under ZeRO it belongs to one flat partition per
        # group, which DeepSpeed ties to the parameters only once that state is there.
        for group in self._adam.param_groups:
            for held in group["params"]:
                self._adam.state[held] = {"step": step.clone()} | {
                    key: torch.zeros_like(held, memory_format=torch.preserve_format) for key in _STATE_KEYS
                }
        if self._zero_stage:
            self._optimiser._lazy_init_hp_params_optimizer_state()
