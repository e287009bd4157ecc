"""Scores of checkpoints that may be compared: those of the very files that are evaluated on now.

A metric's name says benchmark and protocol. Folders of the same name may hold other files, and masks may
be redrawn: which files a score is of is in the run's tag, or in the score's report.
"""

from typing import Any

from hvc.evaluation.reports.logged import data_of, read_report
from hvc.evaluation.reports.registered import Registered, scores_by_step


class ScoresOfData:
    """The scores under one metric, `PATH/MEASURE`, whose files have one digest."""

    def __init__(self, metric: str, digest: str) -> None:
        self._metric, self._digest = metric, digest
        self._known: dict[tuple[str, int, str], bool] = {}
        """By run, step and value, whether that score is of these files."""

    def expect(self, digest: str) -> bool:
        """Take scores of these files from now on; whether they are others than before."""
        if digest == self._digest:
            return False
        self._digest = digest
        self._known.clear()
        return True

    def all(self, client: Any, runs: set[str]) -> dict[tuple[str, int], float]:
        """Those of some runs, by run and step; what is known of a score's files is not asked again."""
        found: dict[tuple[str, int], float] = {}
        for run_id in runs:
            by_step = scores_by_step(client, run_id, self._metric)
            found |= {(run_id, step): by_step[step] for step in self._ours(client, run_id, by_step)}
        return found

    def now(self, client: Any, version: Registered) -> float | None:
        """The score of one version as the server has it at this moment; None where there is none."""
        self.forget(version)
        by_step = scores_by_step(client, version.run_id, self._metric)
        own = {step: value for step, value in by_step.items() if step == version.step}
        return own[version.step] if self._ours(client, version.run_id, own) else None

    def forget(self, version: Registered) -> None:
        """Ask again which files its score is of."""
        for key in [key for key in self._known if key[:2] == (version.run_id, version.step)]:
            del self._known[key]

    def _ours(self, client: Any, run_id: str, scores: dict[int, float]) -> list[int]:
        """The steps whose score is of these files; one whose report is gone counts as such."""
        keys = {step: (run_id, step, repr(value)) for step, value in scores.items()}
        new = [step for step, key in keys.items() if key not in self._known]
        if new:
            path = self._metric.rpartition("/")[0]
            run = client.get_run(run_id)
            data = data_of(run.data.tags, path)
            for step in new:
                report = {} if data else read_report(client, run, path, step)
                digest = data.digest if data else report.get("data_digest", self._digest)
                self._known[keys[step]] = digest == self._digest
        return [step for step, key in keys.items() if self._known[key]]
