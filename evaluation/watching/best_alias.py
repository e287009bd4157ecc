"""The alias of a registered model that means its best checkpoint; only evaluation moves it."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hvc.evaluation.reports.registered import Registered, version_at

BEST_ALIAS = "best"
_log = logging.getLogger(__name__)


Scores = Mapping[tuple[str, int], float]
"""By run id and step."""


def ranked(versions: Iterable[Registered], scores: Scores) -> list[Registered]:
    """The versions whose score is a number, the best first; of equal ones the newer first."""
    scored = [item for item in versions if math.isfinite(scores.get((item.run_id, item.step), math.nan))]
    return sorted(
        scored,
        key=lambda item: (scores[item.run_id, item.step], item.time, item.step, int(item.version)),
        reverse=True,
    )


def move_best(
    client: Any,
    alias: str,
    metric: str,
    best: Registered,
    better: Iterable[Registered],
    score_now: Callable[[Registered], float],
) -> bool:
    """Point the alias at a version, unless it points there or at a better one; whether it was moved.

    A model's alias follows one metric, the one of its tag `hvc.ALIAS`: numbers of different benchmarks or
    protocols are not compared. Where it follows another one, nothing is moved.

    Args:
        better: versions that scored higher, but cannot be pointed to any more.
        score_now: asks the server for a score; NaN where there is none that compares. The alias may have
            been moved, by somebody who saw a later score, since `best` was found.
    """
    tag = f"hvc.{alias}"
    model = client.get_registered_model(best.model)
    followed = model.tags.get(tag)
    if followed not in (None, metric):
        return False
    if followed is None:
        client.set_registered_model_tag(best.model, tag, metric)
    target = model.aliases.get(alias)
    if str(target) in {best.version, *(item.version for item in better)}:
        return False
    current = None if target is None else version_at(client, best.model, str(target))
    if current is not None:
        scores = {(item.run_id, item.step): score_now(item) for item in (current, best)}
        if ranked([current, best], scores)[:1] == [current]:
            return False
    client.set_registered_model_alias(best.model, alias, best.version)
    _log.info("%s@%s is now version %s, step %d", best.model, alias, best.version, best.step)
    return True


def followed_metric(client: Any, model: str, alias: str) -> tuple[str | None, str | None]:
    """The metric that decides where a model's alias points, and the version there; None for none."""
    found = client.get_registered_model(model)
    metric, target = found.tags.get(f"hvc.{alias}"), found.aliases.get(alias)
    return metric, None if target is None else str(target)
