"""What is evaluated: a trunk's features, two trunks' features side by side, or none at all."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.propagation.features import Encoder, Extractor, MergedExtractor, PixelExtractor
from hvc.evaluation.trunks.kept import resolve_or_kept
from hvc.evaluation.trunks.trunk import Trunk


@dataclass(frozen=True)
class Method:
    """One trunk, or two that are merged; scores belong to the first."""

    first: Trunk
    second: Trunk | None = None

    @property
    def sha256(self) -> str:
        """Of the weights, both where there are two."""
        return self.first.sha256 if self.second is None else f"{self.first.sha256}+{self.second.sha256}"

    @property
    def suffix(self) -> str:
        """What tells the metrics of a merged pair from those of the first trunk alone."""
        return "" if self.second is None else merged_suffix(self.second)

    @property
    def seedless(self) -> bool:
        """Whether the seed is of no effect on it."""
        kinds = {trunk.kind for trunk in (self.first, self.second) if trunk is not None}
        return "untrained" not in kinds

    def to_send(self) -> "Method":
        """The same for another process, while this one lives: temporary files stay here."""
        return Method(_to_send(self.first), None if self.second is None else _to_send(self.second))


def _to_send(trunk: Trunk) -> Trunk:
    """Without what keeps its file; one without a name is found by others among our open files."""
    path = trunk.encoder
    if path is not None and path.is_relative_to("/proc/self"):
        path = Path("/proc", str(os.getpid()), path.relative_to("/proc/self"))
    return replace(trunk, encoder=path, held=None)


def merged_suffix(second: Trunk) -> str:
    """What is added to the name of the protocol when features are merged with a second trunk's."""
    return f"-merged-{second.sha256[:7]}"


def resolve_method(config: EvaluateConfig, uri: str) -> Method:
    """Find what is to be evaluated; HvcError when it is not there."""
    first = resolve_or_kept(config, config.checkpoint, uri)
    return Method(first, None if config.merge is None else resolve_or_kept(config, config.merge, uri))


def extractor_of(method: Method, config: EvaluateConfig, device: str) -> Extractor | None:
    """What turns frames into features; None for the baseline that looks at none.

    Raises HvcError when a weights file is damaged or does not fit.
    """
    first = _one(method.first, config, device)
    if method.second is None or first is None:
        return first
    second = _one(method.second, config, device)
    if second is None:
        raise HvcError(f"{method.second.reference} has no features to merge")
    return MergedExtractor(first, second, config.protocol.merge_weight)


def _one(trunk: Trunk, config: EvaluateConfig, device: str) -> Extractor | None:
    if trunk.encoder is not None:
        return Encoder.load(trunk.encoder, device, trust_architecture=config.trust_architecture)
    if trunk.kind == "pixels":
        return PixelExtractor(device)
    if trunk.kind == "untrained":
        return Encoder.untrained(config.seed, device=device)
    return None
