"""The report of an evaluation: what was measured, on what, how, and what came out; plain data for JSON."""

from dataclasses import asdict
from typing import Any

from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.labelling.finished import EVALUATOR_VERSION, dataset_digest
from hvc.evaluation.labelling.results import Results
from hvc.evaluation.metrics.scoring import Summary, scorer_of
from hvc.evaluation.reports.naming import metrics_path
from hvc.evaluation.trunks.method import Method

_LONG = ("per_sequence", "per_object", "curves", "protocol", "pictures", "timing")


def report_values(
    config: EvaluateConfig,
    method: Method,
    results: Results,
    records: list[dict[str, Any]],
    subset: str,
    summary: Summary | None,
) -> dict[str, Any]:
    """The report from the records of all sequences.

    Args:
        subset: what tells the name of some sequences' scores from that of all.
        summary: None where there is nothing to score with.
    """
    frames = sum(record["frames"] for record in records)
    seconds = sum(record["seconds"] for record in records)
    preset = config.protocol_name + method.suffix + subset
    report: dict[str, Any] = {
        "checkpoint": method.first.reference,
        "step": method.first.step,
        "weights_sha256": method.first.sha256,
        "benchmark": config.benchmark,
        "preset": preset,
        "metrics": metrics_path(config.benchmark, config.data, preset),
        "evaluator": EVALUATOR_VERSION,
        "evaluated": max(record["time"] for record in records),
        "data_digest": dataset_digest({record["name"]: record["data_digest"] for record in records}),
        "protocol": config.protocol.resolved(),
        "results": str(results.folder),
        "sequences": len(records),
        "frames": frames,
        "seconds_per_frame": seconds / frames,
        "timing": {
            "seconds": seconds,
            "seconds_per_frame": seconds / frames,
            "device": sorted({record["device"] for record in records}),
            "per_sequence": {record["name"]: record["seconds"] for record in records},
        },
    }
    if method.second is not None:
        report["merged"] = {
            "checkpoint": method.second.reference,
            "step": method.second.step,
            "weights_sha256": method.second.sha256,
            "weight_of_first": config.protocol.merge_weight,
        }
    if summary is None:
        return report | {"headline": None, "scores": _why_none(config)}
    scorer = scorer_of(config.benchmark, config.protocol)
    assert scorer is not None
    return report | {"headline": scorer.headline} | asdict(summary)


def brief(report: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to see of a report at once; the rest is in its file."""
    short = {key: value for key, value in report.items() if key not in _LONG}
    if report.get("headline"):
        sequences = report["per_sequence"]
        short["per_sequence"] = {
            name: values.get(report["headline"], values) for name, values in sequences.items()
        }
    return short


def _why_none(config: EvaluateConfig) -> str:
    if config.benchmark == "folder":
        return "none: no sequence has annotations for every frame"
    return f"none: the ground truth of {config.benchmark} is not public"
