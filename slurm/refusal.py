"""What sbatch says when it takes no job, and what to do about it."""

import re

_UNREACHABLE = re.compile(
    r"unable to contact|unable to establish|connect failure|connection (refused|timed out)|"
    r"socket timed out|temporarily unable|transport endpoint|configuration source",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(r"account|association|qos", re.IGNORECASE)


def refusal(words: str) -> str:
    """One sentence for sbatch's own words, with the mend."""
    if _UNREACHABLE.search(words):
        return f"Slurm's controller does not answer: {words}; see `scontrol ping`, then submit again"
    advice = "correct the cluster's file"
    if _ACCOUNT.search(words):
        advice += "; `sacctmgr show assoc user=$USER` lists accounts, partitions and qos that are yours"
    return f"sbatch refused the job: {words}; {advice}"
