"""How far an evaluation has come, as a number that whoever starts it again can compare."""

from pathlib import Path

from hvc.evaluation.evaluate_config import EvaluateConfig


def advance(config: EvaluateConfig) -> int:
    """Number of finished sequences of this benchmark below the output, of whatever weights."""
    root = Path(config.output or "outputs/eval")
    return sum(1 for _ in root.glob(f"{config.benchmark}/*/sequences/*.json"))
