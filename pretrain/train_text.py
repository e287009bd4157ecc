"""The end of `hvc train` for the terminal: where the result is, how to look at it, what to type next."""

import shlex
from typing import Any

from hvc.base.stage import Outcome, Result

_LOCAL = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves."""


def report_lines(result: Result) -> list[str]:
    """At most seven lines, what is looked for most first; all figures are in MLflow, and in `--json`."""
    report = result.report
    lines = [f"outcome: {result.outcome}", f"checkpoint: {report['checkpoint']}", _progress(report)]
    run_id, uri = report.get("run_id"), str(report.get("tracking_uri", ""))
    if run_id:
        lines += [f"run: runs:/{run_id}", *(f"{word}: {text}" for word, text in where_to_look(uri))]
    elif uri:
        lines.append(f"run: not at {uri} yet; `hvc sync` sends it when the server is back")
    if result.outcome is Outcome.STOPPED:
        return [*lines, "next: the same command goes on from here"]
    trunk = shlex.quote(f"runs:/{run_id}" if run_id else report["checkpoint"])
    return [*lines, f"next: hvc evaluate {trunk} davis2016 DAVIS    (or: folder CLIP)"]


def _progress(report: dict[str, Any]) -> str:
    metrics = report["metrics"]
    parts = [f"step: {report['step']:,} of {report['steps']:,}"]
    if "train/loss" in metrics:
        parts.append(f"loss {metrics['train/loss']:+.3f}")
    if "perf/images_per_second" in metrics:
        parts.append(f"{metrics['perf/images_per_second']:,.0f} images/s")
    return ", ".join(parts)


def where_to_look(uri: str, mlflow: str = "mlflow") -> list[tuple[str, str]]:
    """How to see the runs of a server or database; MLflow's front page is about other things.

    Args:
        mlflow: The command that starts MLflow, as a shell takes it.

    Returns:
        Pairs of a word and what it stands for: an address, or a command and the address that it serves.
    """
    page = "/#/experiments?workflowType=machine_learning"
    if uri.startswith(("http://", "https://")):
        return [("look", f"{uri.rstrip('/')}{page}")]
    return [("look", f"{mlflow} ui --backend-store-uri {shlex.quote(uri)}"), ("  at", f"{_LOCAL}{page}")]
