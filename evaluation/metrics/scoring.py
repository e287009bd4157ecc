"""Which measures belong to which benchmark."""

from hvc.evaluation.metrics.davis import MaskScorer
from hvc.evaluation.metrics.pose import PoseScorer
from hvc.evaluation.metrics.scorer import Scorer, Summary
from hvc.evaluation.metrics.vip import VipScorer
from hvc.evaluation.metrics.vost import VostScorer
from hvc.evaluation.propagation.protocol import Protocol

__all__ = ["Scorer", "Summary", "scorer_of"]

_NO_TRUTH = {"davis2017-test-dev", "youtube-vos-2018", "youtube-vos-2019"}


def scorer_of(
    benchmark: str, protocol: Protocol | None = None, *, official_decay: bool = False
) -> Scorer | None:
    """The measures of a benchmark; None when its ground truth is not public.

    Args:
        benchmark: its name.
        protocol: says how JHMDB counts lost joints and the first frame; by default as published figures.
        official_decay: number frames in 8 bits where the official tools do, see `statistics`.
    """
    if benchmark in _NO_TRUTH:
        return None
    if benchmark == "vost":
        return VostScorer(official_decay=official_decay)
    if benchmark == "vip":
        return VipScorer()
    if benchmark == "jhmdb":
        chosen = protocol or Protocol()
        return PoseScorer(lost_joints=chosen.lost_joints, first_frame=chosen.joint_first_frame)
    return MaskScorer(merged=benchmark in ("davis2016", "davis2016-merged"), official_decay=official_decay)
