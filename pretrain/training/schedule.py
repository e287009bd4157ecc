"""How the learning rate goes over a run: a pure function of the step."""

import math

from hvc.pretrain.recipe import TrainConfig


def full_rate(config: TrainConfig) -> float:
    """The learning rate after warm-up, scaled from the reference batch to the recipe's.

    Adam's steps have a size of their own, so the usual rule for it is the square root of the batch;
    `linear` is SGD's.
    """
    schedule = config.schedule
    power = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}[schedule.batch_scaling]
    scale: float = (config.batch_size / schedule.reference_batch) ** power
    return config.learning_rate * scale


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """The rate that step `step` (from 0) of `total_steps` is taken with, in (0, full rate]."""
    schedule, full = config.schedule, full_rate(config)
    if step < schedule.warmup_steps:
        return full * (step + 1) / schedule.warmup_steps
    if schedule.decay == "constant":
        return full
    # The first step after warm-up has the full rate; one step after the last would have the final share.
    through = (step - schedule.warmup_steps) / max(total_steps - schedule.warmup_steps, 1)
    cosine = (1 + math.cos(math.pi * through)) / 2
    return full * (schedule.final_share + (1 - schedule.final_share) * cosine)
