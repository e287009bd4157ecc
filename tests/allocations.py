"""How much memory torch takes on the CPU while something runs."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def temporary_peak(run: Callable[[], Sequence[Tensor]]) -> int:
    """Most bytes that `run` held at any one time, what it returns aside.

    Every allocation of torch's is seen, with its address, so nothing depends on what the process had
    free before or on when the system takes pages back. What libraries below torch hold is not seen.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        results = run()
    returned = {result.untyped_storage().data_ptr() for result in results}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        seen.export_chrome_trace(str(path))
        trace = json.loads(path.read_text())["traceEvents"]
    events = [event for event in trace if event.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    assert events, "the profiler saw no allocation"
    # Returned are the last ones at those addresses: earlier ones there were temporary.
    last = {event["args"]["Addr"]: at for at, event in enumerate(events) if event["args"]["Bytes"] > 0}
    aside = {last[address] for address in returned}
    now = peak = 0
    for at, event in enumerate(events):
        if at not in aside:
            now += event["args"]["Bytes"]
            peak = max(peak, now)
    return peak
