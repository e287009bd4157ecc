"""DeepSpeed around the online network: set-up without compilers, and its state independent of ranks.

Parameters, buffers and Adam's state stay fp32 at every precision; bf16 and fp16 are autocast for compute
only (whole-model bf16 would round away small EMA updates and BatchNorm statistics). Autocast, clipping
and loss scaling are ours and not DeepSpeed's: alike under every ZeRO stage, gradients averaged in fp32,
and without the host waiting for the device.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hvc.base.errors import HvcError
from hvc.pretrain.recipe import EngineConfig, TrainConfig
from hvc.pretrain.training.optimiser import GuardedAdam, LossScale
from hvc.pretrain.training.processes import Place
from hvc.pretrain.training.ranks import import_deepspeed
from hvc.pretrain.training.schedule import full_rate

_STATE_KEYS = ("exp_avg", "exp_avg_sq")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


def prepare_device(config: EngineConfig, device: torch.device) -> None:
    """Set what holds for the whole process: TF32, the search for fast convolutions."""
    torch.backends.cudnn.allow_tf32 = config.tf32 != "off"
    torch.backends.cuda.matmul.allow_tf32 = config.tf32 == "everything"
    torch.backends.cudnn.benchmark = device.type == "cuda"


def channels_last(config: EngineConfig) -> bool:
    """Whether convolutions' weights lie channels last in memory, as views and so activations always do."""
    return config.channels_last is not False


def autocast(config: EngineConfig, device: torch.device) -> AbstractContextManager[Any]:
    """The precision that networks compute in. Inside of modules: DeepSpeed ends one around them."""
    dtype = _DTYPES.get(config.precision, torch.bfloat16)
    return torch.autocast(device.type, dtype, enabled=config.precision in _DTYPES)


def deepspeed_config(config: TrainConfig) -> dict[str, Any]:
    """What DeepSpeed is told. The micro batch is nominal: batches are planned by us."""
    zero: dict[str, Any] = {"stage": config.engine.zero_stage}
    if config.engine.zero_stage:
        zero |= {"compute_grad_norm": False, "overlap_comm": False}  # the norm is the optimiser's work
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # gradients are averaged in `step`, after all parts
        "zero_optimization": zero,
        "gradient_clipping": 0.0,  # left out it would be 1; ours is the optimiser's work
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 60,
        "timers": {"throughput": {"enabled": False}},  # it would wait for the device twice a step
    }


class Engine:
    """One rank's part of the distributed online network and its optimiser.

    A step is `forward` and `backward` for each part of the rank's batch, then `step`. Parameters that
    need no gradient are in the network only: they have no state here.
    """

    def __init__(self, network: nn.Module, config: TrainConfig, device: torch.device) -> None:
        deepspeed = import_deepspeed(device)
        self.network, self.device, self._zero_stage = network, device, config.engine.zero_stage
        self.loss_scale = LossScale(device) if config.engine.precision == "fp16" else None
        self._trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
        self.optimiser = GuardedAdam(
            self._trained.values(),
            learning_rate=full_rate(config),
            weight_decay=config.weight_decay,
            clip_norm=config.engine.clip_norm,
            loss_scale=self.loss_scale,
        )
        self.optimiser.sharded = bool(self._zero_stage)
        self._engine, self._zero, _, _ = deepspeed.initialize(
            model=network, optimizer=self.optimiser, config=deepspeed_config(config)
        )
        if dist.get_world_size() == 1 and not self._zero_stage:
            self._engine.enable_backward_allreduce = False  # nothing to average: spare the copies
        if channels_last(config.engine) and not self._zero_stage:
            # Only now: DeepSpeed starts with contiguous weights alone. ZeRO's stay in one flat tensor.
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._begin_adam_state()
        self.own_gradient = torch.zeros((), device=device)
        """Sum over this rank's gradient of the first trained weight since the last step; see `finite`."""
        next(iter(self._trained.values())).register_hook(self._watch)  # type: ignore[no-untyped-call]

    def forward(self, *inputs: Any) -> Any:
        """The network's forward pass."""
        return self._engine(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a part of the batch to this rank's."""
        self._engine.backward(self.loss_scale.apply(loss) if self.loss_scale else loss)

    def step(self, learning_rate: float) -> Tensor:
        """Average gradients over the ranks and move the weights; gives `own_gradient` of this step.

        What the step did stands in `optimiser.norm`, `optimiser.found_inf` and `optimiser.overflow`.
        """
        self.optimiser.set_rate(learning_rate)
        if self.loss_scale:
            self.loss_scale.agree()
        self._engine.step()
        own, self.own_gradient = self.own_gradient, torch.zeros_like(self.own_gradient)
        return own

    def _watch(self, gradient: Tensor) -> None:
        self.own_gradient = self.own_gradient + gradient.detach().sum()

    def adopt_parameters(self) -> None:
        """After the network's parameters were replaced: bring ZeRO's own copy of them up to date."""
        if self._zero_stage == 0:
            return
        from deepspeed.utils import safe_set_full_fp32_param

        for parameter in self._trained.values():
            safe_set_full_fp32_param(parameter, parameter.detach().clone())

    def optimiser_state(self, *, wanted: bool = True) -> dict[str, Tensor]:
        """Adam's whole state on the CPU as `NAME/exp_avg`, `NAME/exp_avg_sq`, `step`; all ranks call it.

        Where it is not `wanted` the rank gives its share to the others, copies nothing, and gets nothing.
        """
        if not wanted and self._zero_stage == 0:
            return {}
        from deepspeed.utils import safe_get_full_optimizer_state

        tensors = {}
        for name, parameter in self._trained.items():
            for key in _STATE_KEYS:
                if self._zero_stage == 0:
                    value = self.optimiser.state[parameter][key]
                else:
                    value = safe_get_full_optimizer_state(parameter, key)
                if wanted:
                    tensors[f"{name}/{key}"] = copy_to_cpu(value)
        if wanted:
            tensors["step"] = copy_to_cpu(self._adam_steps()[0])
        return tensors

    def load_optimiser_state(self, tensors: dict[str, Tensor]) -> None:
        """Take Adam's whole state back, at any number of ranks and ZeRO stage 0 or 1."""
        from deepspeed.utils import safe_set_full_optimizer_state

        for step in self._adam_steps():
            step.copy_(saved(tensors, "step"))
        for name, parameter in self._trained.items():
            for key in _STATE_KEYS:
                value = saved(tensors, f"{name}/{key}").to(self.device)
                if self._zero_stage == 0:
                    self.optimiser.state[parameter][key].copy_(value)
                else:
                    safe_set_full_optimizer_state(parameter, value, key)

    def _adam_steps(self) -> list[Tensor]:
        return [state["step"] for state in self.optimiser.state.values()]

    def _begin_adam_state(self) -> None:
        # Adam makes its state in the first step; under ZeRO it belongs to one flat partition per
        # group, which DeepSpeed ties to the parameters only once that state is there.
        for group in self.optimiser.param_groups:
            for held in group["params"]:
                self.optimiser.state[held] = {"step": torch.zeros((), device=held.device)} | {
                    key: torch.zeros_like(held, memory_format=torch.preserve_format) for key in _STATE_KEYS
                }
        if self._zero_stage:
            self._zero._lazy_init_hp_params_optimizer_state()


def saved(tensors: dict[str, Tensor], name: str) -> Tensor:
    """A tensor of a checkpoint; HvcError if it has none of this name."""
    if name not in tensors:
        raise HvcError(f"the checkpoint has no {name}; it is of another version of hvc, or another trunk")
    return tensors[name]


def copy_to_cpu(value: Tensor) -> Tensor:
    """A contiguous copy on the CPU that nothing else writes to."""
    copy = torch.empty(value.shape, dtype=value.dtype)
    return copy.copy_(value.detach())
