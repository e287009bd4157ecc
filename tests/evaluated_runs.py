"""Runs with evaluations as they stand at MLflow, without anything having been trained or propagated."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric

from hvc.evaluation.reports.logged import Data, note_data
from hvc.pretrain.tracking.mlflow_client import client_of, experiment_id

HOUR = 3_600_000


class Recorded:
    """A tracking server or database to record runs at."""

    def __init__(self, uri: str, experiment: str = "hvc") -> None:
        self.uri, self.client, self.name = uri, client_of(uri), experiment
        self.experiment = experiment_id(self.client, experiment, uri)

    def run(self, name: str, status: str = "FINISHED", **tags: str) -> str:
        """A run that has ended."""
        run = self.client.create_run(
            self.experiment, run_name=name, tags={k.replace("_", "."): v for k, v in tags.items()}
        )
        self.client.set_terminated(run.info.run_id, status)
        return str(run.info.run_id)

    def evaluation(
        self,
        run_id: str,
        step: int,
        score: float,
        benchmark: str = "davis2017",
        preset: str = "hvc",
        digest: str = "d" * 64,
        count: int = 30,
        hour: int = 0,
        pictures: Sequence[Path] = (),
        headline: str = "jf_mean",
        noted: bool = True,
        **more: Any,
    ) -> dict[str, Any]:
        """The scores of a step, whose sequences differ by a tenth each; returns the report.

        Args:
            noted: the run's tag says which files they are of.
        """
        path = f"eval/{benchmark}/{preset}"
        names = [f"video-{number:02d}" for number in range(count)]
        report = {
            "benchmark": benchmark,
            "preset": preset,
            "metrics": path,
            "step": step,
            "headline": headline,
            "checkpoint": f"runs:/{run_id}@{step}",
            "data_digest": digest,
            "sequences": count,
            "evaluated": 1_790_000_000_000 + hour * HOUR,
            "protocol": {"context": 50, "radius": 12.0},
            "scores": {headline: score, "j_mean": score - 2, "f_mean": score + 2},
            "per_sequence": {name: {headline: score + place / 10} for place, name in enumerate(names)},
            "per_object": {
                f"{name}/{k}": {"j_mean": score, "f_mean": score + k} for name in names for k in (1, 2)
            },
            "curves": {
                name: {"j": [50 + 40 * math.sin(t / 9) for t in range(70)], "f": [60.0] * 70}
                for name in names
            },
            "pictures": [str(one) for one in pictures],
            **more,
        }
        folder = f"{path}/step-{step:08d}"
        if noted:
            note_data(self.client, self.client.get_run(run_id), path, Data(digest, count))
        for one in pictures:
            self.client.log_artifact(run_id, str(one), folder)
        self.client.log_dict(run_id, report, f"{folder}/scores.json")
        points = [
            Metric(f"{path}/{name}", value, report["evaluated"], step)
            for name, value in report["scores"].items()
        ]
        self.client.log_batch(run_id, metrics=points)
        return report
