"""What an evaluation is told: one typed config, from the command line or a stored job."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hvc.base.addresses import CleanUri
from hvc.base.config import Config
from hvc.evaluation.layouts.benchmarks import BENCHMARKS
from hvc.evaluation.propagation.presets import PRESETS
from hvc.evaluation.propagation.protocol import Protocol

Device = Literal["auto", "cpu", "cuda"]


def _names(values: object) -> object:
    """Refuse what YAML made of unquoted names: 00010 is the number 8 to it, and no name any more."""
    others = [value for value in values if not isinstance(value, str)] if isinstance(values, list) else []
    if others:
        raise ValueError(
            f"{others[0]!r} is not text: without quotes YAML reads a name like 00010 or no as a number or "
            "a yes/no; quote names, and the whole for the shell: 'sequences=[\"00010\"]'"
        )
    return values


def _once(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _known(text: str, known: dict[str, Any], what: str) -> str:
    """ValueError with the nearest name, and all of them, for one that is not known."""
    if text in known:
        return text
    close = difflib.get_close_matches(text, known, n=1)
    near = f"did you mean {close[0]}? " if close else ""
    raise ValueError(f"no {what} {text!r}; {near}There are: {', '.join(known)}")


class EvaluateConfig(Config):
    """What to evaluate, on what, how."""

    checkpoint: str
    """`runs:/ID[@STEP]`, `models:/NAME@ALIAS`, a checkpoint folder, a trunk file, either of them at
    `s3://bucket/...`, weights as others publish them (.pth), or `baseline:untrained`, `baseline:pixels`,
    `baseline:first-mask`."""
    benchmark: Annotated[str, AfterValidator(lambda text: _known(text, BENCHMARKS, "benchmark"))]
    """A name of `benchmarks.BENCHMARKS`."""
    data: str
    """The benchmark's folder."""
    merge: str | None = None
    """A second checkpoint, whose features are joined with the first's, weighted by
    `protocol.merge_weight`. Scores belong to the first, under a name of their own."""
    output: str | None = None
    """Folder for label maps, scores and pictures; by default one below `outputs/eval`."""
    tracking_uri: CleanUri | None = None
    """MLflow; by default MLFLOW_TRACKING_URI, else where the run of a checkpoint folder was recorded,
    else `outputs/mlflow.db`."""
    sequences: (
        Annotated[list[str], Field(min_length=1), BeforeValidator(_names), AfterValidator(_once)] | None
    ) = None
    """Only these sequences, in this order, repeats dropped; by default all."""
    device: Device = "auto"
    """auto: all GPUs, else the CPU."""
    workers: int = Field(default=0, ge=0)
    """Sequences at once, each in a process of its own; 0: as many as cores and memory allow, with GPUs one
    per GPU. 1 is this process itself."""
    parts: int = Field(default=1, ge=1)
    """How many runs of this command share the sequences, each with its `part`."""
    part: int | None = Field(default=None, ge=0)
    """Which of them this is, from 0: it labels its share and scores nothing. null does what is missing and
    reports."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """Weights of `baseline:untrained`."""
    trust_architecture: bool = False
    """Import the trunk that a weights file names as `package.module:factory`; that runs its code."""
    experiment: str = "hvc"
    """MLflow experiment for baselines, which have no training run of their own."""
    preset: str = ""
    """Protocol by name, which `protocol` changes; by default the benchmark's."""
    protocol: Protocol = Field(default_factory=Protocol)
    """The preset's numbers, unless said otherwise here."""

    @model_validator(mode="before")
    @classmethod
    def _fill_protocol(cls, values: Any) -> Any:
        """The protocol as it will be: the preset with what was said over it."""
        if not isinstance(values, dict):
            return values
        benchmark = BENCHMARKS.get(str(values.get("benchmark")))
        name = values.get("preset") or (benchmark.preset if benchmark else "hvc")
        preset = PRESETS[_known(str(name), PRESETS, "preset")]
        protocol = values.get("protocol") or {}
        if isinstance(protocol, dict):
            protocol = {**preset.resolved(), **protocol}
        return {**values, "preset": str(name), "protocol": protocol}

    @model_validator(mode="after")
    def _fits(self) -> "EvaluateConfig":
        if self.part is not None and self.part >= self.parts:
            raise ValueError(
                f"part {self.part} of {self.parts}: parts are counted from 0 to {self.parts - 1}"
            )
        if self.merge is not None and "baseline:first-mask" in (self.checkpoint, self.merge):
            raise ValueError("baseline:first-mask compares no features, so there is nothing to merge")
        return self

    @property
    def results_root(self) -> Path:
        """Where the results folders of the benchmark are."""
        return (Path(self.output or "outputs/eval") / self.benchmark).absolute()

    @property
    def protocol_name(self) -> str:
        """The preset whose numbers these are (that which was chosen, else any), else `custom-DIGEST`."""
        for name in (self.preset, *PRESETS):
            if PRESETS[name] == self.protocol:
                return name
        return f"custom-{self.protocol.digest()[:6]}"
