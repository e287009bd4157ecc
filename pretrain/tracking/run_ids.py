"""Runs by the beginning of their id, as `hvc runs` shows it."""

import re
from typing import Any

from hvc.base.errors import UsageError
from hvc.pretrain.tracking.mlflow_client import answering

_WHOLE = 32
_SHOWN = 5
_FEW = re.compile(r"[0-9a-f]+")


def whole_id(client: Any, beginning: str, uri: str) -> str:
    """The id of the one run whose id begins so, in any experiment; a whole id is not looked up.

    What no run begins with is given back: what is asked next says that there is no such run.

    Raises:
        UsageError: several runs begin so.
        HvcError: the server does not answer.
    """
    if len(beginning) >= _WHOLE or not _FEW.fullmatch(beginning):
        return beginning
    with answering(uri):
        experiments = [item.experiment_id for item in client.search_experiments()]
        wanted = f"attributes.run_id LIKE '{beginning}%'"
        found = client.search_runs(experiments, wanted, max_results=_SHOWN)
    if len(found) > 1:
        names = ", ".join(f"{run.info.run_id} ({run.info.run_name})" for run in found)
        raise UsageError(f"several runs begin with {beginning}: {names}; write more of the id")
    return str(found[0].info.run_id) if found else beginning
