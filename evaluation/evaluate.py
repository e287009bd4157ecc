"""The evaluation stage: propagate labels through each sequence, score, report to the run."""

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, BeforeValidator, Field
from rich.console import Console
from rich.progress import Progress

from hvc.base.addresses import CleanUri
from hvc.base.config import Config
from hvc.base.errors import HvcError
from hvc.base.files import write_atomic
from hvc.base.stage import Outcome, Provenance, Result, Stop
from hvc.evaluation.checks import check_sequences
from hvc.evaluation.datasets import davis2016_names, read_davis2016, read_folder
from hvc.evaluation.davis_metrics import SequenceScore, score_dataset, score_sequence, statistics
from hvc.evaluation.features import Encoder
from hvc.evaluation.finished import (
    EVALUATOR_VERSION,
    dataset_digest,
    read_finished,
    sequence_digest,
    write_finished,
)
from hvc.evaluation.images import read_frame
from hvc.evaluation.masks import VOID, read_mask, write_mask
from hvc.evaluation.naming import metrics_path, subset_suffix
from hvc.evaluation.pictures import film_strip
from hvc.evaluation.protocol import Protocol
from hvc.evaluation.report import log_to_run
from hvc.evaluation.resolve import Trunk, resolve
from hvc.evaluation.sequences import Sequence, read_annotations, to_single_object
from hvc.evaluation.tracked import tracking_uri
from hvc.evaluation.video import propagate

_FRAMES_SHOWN = 6


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


class EvaluateConfig(Config):
    """What to evaluate, on what, how."""

    checkpoint: str
    """`runs:/ID[@STEP]`, `models:/NAME@ALIAS`, a checkpoint folder, a trunk file, either of them at
    `s3://bucket/...`, or `baseline:untrained`."""
    benchmark: Literal["davis2016", "folder"]
    data: str
    """The benchmark's folder."""
    output: str | None = None
    """Folder for label maps, scores and pictures; by default one below `outputs/eval`."""
    tracking_uri: CleanUri | None = None
    """MLflow; by default MLFLOW_TRACKING_URI, else where the run of a checkpoint folder was recorded,
    else `outputs/mlflow.db`."""
    sequences: (
        Annotated[list[str], Field(min_length=1), BeforeValidator(_names), AfterValidator(_once)] | None
    ) = None
    """Only these sequences, in this order, repeats dropped; by default all."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the first GPU, else the CPU."""
    seed: int = Field(default=42, ge=0, lt=2**63)
    """Weights of `baseline:untrained`."""
    trust_architecture: bool = False
    """Import the trunk that a weights file names as `package.module:factory`; that runs its code."""
    experiment: str = "hvc"
    """MLflow experiment for baselines, which have no training run of their own."""
    protocol: Protocol = Field(default_factory=Protocol)

    @property
    def preset(self) -> str:
        """`hvc` for the official protocol, else `custom-` and a short digest."""
        return "hvc" if self.protocol == Protocol() else f"custom-{self.protocol.digest()[:6]}"


def run(config: EvaluateConfig, stop: Stop, provenance: Provenance) -> Result:
    """Evaluate; finished sequences of an earlier attempt with the same weights and files are kept."""
    del provenance
    device = _device(config)
    uri = tracking_uri(config.tracking_uri, config.checkpoint)
    sequences, present = _read(config)
    trunk = resolve(config.checkpoint, uri)
    encoder = _encoder(config, trunk, device)
    check_sequences(sequences)
    folder = _results_folder(config, trunk)
    outcomes: list[dict[str, Any]] = []
    with Progress(console=Console(stderr=True), disable=not Console(stderr=True).is_terminal) as progress:
        task = progress.add_task("frames", total=sum(len(item.frames) for item in sequences))
        for sequence in sequences:
            done = evaluate_sequence(sequence, encoder, config.protocol, folder, stop)
            if done is None:
                return Result(Outcome.STOPPED, {"results": str(folder), "finished": len(outcomes)})
            outcomes.append(done)
            progress.advance(task, len(sequence.frames))
    subset = subset_suffix([sequence.name for sequence in sequences], present)
    report = _report(config, trunk, folder, config.preset + subset, outcomes)
    write_atomic(folder / f"scores{subset}.json", json.dumps(report, indent=1))
    pictures = [folder / "pictures" / f"{sequence.name}.png" for sequence in sequences]
    report |= {"pictures": [str(path) for path in pictures]}
    report |= log_to_run(config, trunk, uri, report, pictures)
    return Result(Outcome.DONE, report)


def evaluate_sequence(
    sequence: Sequence, encoder: Encoder, protocol: Protocol, folder: Path, stop: Stop
) -> dict[str, Any] | None:
    """Label maps, picture and measures of one sequence; None if stopped before its end.

    The record `sequences/NAME.json` is written last: with it the sequence counts as finished, as long
    as its files stay the same.
    """
    record = folder / "sequences" / f"{sequence.name}.json"
    digest = sequence_digest(sequence)
    known = read_finished(record, digest)
    if known is not None:
        return known
    start = time.monotonic()
    _clear(folder / "labels" / sequence.name)
    labels: list[NDArray[np.uint8]] = []
    for frame in propagate(sequence, encoder, protocol, stop):
        path = sequence.frames[frame.index]
        write_mask(folder / "labels" / sequence.name / f"{path.stem}.png", frame.labels)
        labels.append(frame.labels)
    if len(labels) < len(sequence.frames):
        return None
    seconds = time.monotonic() - start
    _picture(sequence, labels, folder / "pictures" / f"{sequence.name}.png")
    result: dict[str, Any] = {"name": sequence.name, "frames": len(labels), "seconds": seconds}
    if sequence.annotated:
        predicted = np.stack(labels)
        if sequence.single_object:
            predicted = to_single_object(predicted)
        truth = read_annotations(sequence)
        score = score_sequence(truth, predicted)
        # An id that the first mask skips is no object: it would score 1 for being absent.
        rows = [number - 1 for number in np.unique(truth[0]) if number not in (0, VOID)]
        result |= {"j": score.region[rows].tolist(), "f": score.contour[rows].tolist()}
    return write_finished(record, digest, result)


def _clear(labels: Path) -> None:
    """Label maps of an earlier attempt: its frames may have had other names."""
    for path in labels.glob("*.png"):
        path.unlink()


def _read(config: EvaluateConfig) -> tuple[list[Sequence], list[str]]:
    """The sequences to evaluate, and the names of all that the benchmark has here."""
    if config.benchmark == "davis2016":
        return read_davis2016(config.data, config.sequences), davis2016_names(config.data)
    sequences = read_folder(config.data)
    present = [sequence.name for sequence in sequences]
    if config.sequences is None:
        return sequences, present
    known = {sequence.name: sequence for sequence in sequences}
    absent = [name for name in config.sequences if name not in known]
    if absent:
        raise HvcError(f"{config.data} has no sequence {', '.join(absent)}; it has: {', '.join(known)}")
    return [known[name] for name in config.sequences], present


def _device(config: EvaluateConfig) -> str:
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise HvcError("device=cuda, but PyTorch finds no GPU on this machine; take device=cpu")
    return ("cuda" if available else "cpu") if config.device == "auto" else config.device


def _encoder(config: EvaluateConfig, trunk: Trunk, device: str) -> Encoder:
    if trunk.encoder is None:
        return Encoder.untrained(config.seed, device=device)
    return Encoder.load(trunk.encoder, device, trust_architecture=config.trust_architecture)


def _results_folder(config: EvaluateConfig, trunk: Trunk) -> Path:
    # Weights, data and protocol name the folder: results of one are never taken for another's.
    seed = config.seed if trunk.encoder is None else ""
    key = f"{trunk.sha256}/{seed}/{config.protocol.digest()}/{config.data}"
    name = f"{trunk.sha256[:9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    root = Path(config.output) if config.output else Path("outputs") / "eval"
    folder = (root / config.benchmark / name).absolute()
    try:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HvcError(f"cannot write to {folder}: {error.strerror}; choose another --output") from None
    return folder


def _picture(sequence: Sequence, labels: list[NDArray[np.uint8]], path: Path) -> None:
    chosen = np.linspace(0, len(labels) - 1, min(_FRAMES_SHOWN, len(labels))).round().astype(int)
    images = [read_frame(sequence.frames[index]) for index in chosen]
    truth = None
    if sequence.annotated:
        files = [sequence.annotations[index] for index in chosen]
        truth = [read_mask(file) for file in files if file is not None]
    titles = [sequence.frames[index].stem for index in chosen]
    strip: Image.Image = film_strip(images, [labels[index] for index in chosen], titles, truth)
    strip.save(path)


def _report(
    config: EvaluateConfig,
    trunk: Trunk,
    folder: Path,
    preset: str,
    outcomes: list[dict[str, Any]],
) -> dict[str, Any]:
    frames = sum(item["frames"] for item in outcomes)
    report: dict[str, Any] = {
        "checkpoint": trunk.reference,
        "step": trunk.step,
        "weights_sha256": trunk.sha256,
        "benchmark": config.benchmark,
        "preset": preset,
        "metrics": metrics_path(config.benchmark, config.data, preset),
        "evaluator": EVALUATOR_VERSION,
        "data_digest": dataset_digest({item["name"]: item["data_digest"] for item in outcomes}),
        "protocol": config.protocol.resolved(),
        "results": str(folder),
        "sequences": len(outcomes),
        "frames": frames,
        "seconds_per_frame": sum(item["seconds"] for item in outcomes) / frames,
    }
    scores = {
        item["name"]: SequenceScore(np.array(item["j"]), np.array(item["f"]))
        for item in outcomes
        if "j" in item
    }
    if not scores:
        return report | {"scores": "none: no sequence has annotations for every frame"}
    overall = score_dataset(list(scores.values()))
    report["scores"] = {"jf_mean": 100 * overall.mean}
    for letter, part in (("j", overall.region), ("f", overall.contour)):
        report["scores"] |= {f"{letter}_{key}": 100 * value for key, value in asdict(part).items()}
    report["per_sequence"] = {name: 100 * score.mean for name, score in scores.items()}
    report["per_object"] = {
        f"{name}/{number}": {
            "j_mean": 100 * statistics(region).mean,
            "f_mean": 100 * statistics(contour).mean,
        }
        for name, score in scores.items()
        for number, (region, contour) in enumerate(zip(score.region, score.contour, strict=True), 1)
    }
    return report
