"""DeepSpeed around the online network: set-up without compilers, and its state independent of ranks.

Parameters, buffers and Adam's state stay fp32 at every precision; bf16 is autocast for compute only
(whole-model bf16 would round away small EMA updates and BatchNorm statistics).
"""

import logging
import os
import sys
import warnings
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hvc.pretrain.processes import Place
from hvc.pretrain.recipe import TrainConfig

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
_STATE_KEYS = ("exp_avg", "exp_avg_sq")


def choose_device(wanted: str, place: Place) -> torch.device:
    """The device of this process: one GPU per local rank, or the CPU."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    device = torch.device("cuda", place.local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, quiet, and without building its shared-memory kernels.

    Those kernels serve inference only, yet DeepSpeed compiles them at start-up on CPUs and fails
    where there is no compiler; the builder is replaced before anything calls it.
    """
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    sys.modules["deepspeed.comm.torch"].build_shm_op = lambda: None  # type: ignore[attr-defined]
    return deepspeed


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
        if not dist.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            deepspeed.init_distributed(
                backend, auto_mpi_discovery=False, verbose=False, timeout=COLLECTIVE_TIMEOUT
            )
        self.network, self.device, self._zero_stage = network, device, config.engine.zero_stage
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        self._engine, self._optimiser, _, _ = deepspeed.initialize(
            model=network, optimizer=optimiser, config=deepspeed_config(config)
        )
        self._adam = optimiser
        # Flags and small figures travel over the CPU, so that asking never waits for a GPU.
        self.cpu_group = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)

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

    def any_rank(self, flag: bool) -> bool:
        """True on all ranks if it is on one."""
        value = torch.tensor([flag], dtype=torch.int32)
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self.cpu_group)
        return bool(value.item())

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Element-wise sum over all ranks, on the CPU, float64."""
        total = values.detach().to("cpu", torch.float64)
        dist.all_reduce(total, group=self.cpu_group)
        return total

    def barrier(self) -> None:
        """Wait for all ranks."""
        dist.barrier(group=self.cpu_group)

    def close(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            dist.destroy_process_group()
