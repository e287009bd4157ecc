"""What a node is busy with, named so that the System metrics tab of an MLflow run shows it."""

from pathlib import Path

import psutil
import torch

_MB = 1e6
_network_before = psutil.net_io_counters()  # when this process began


def system_figures(node: int, disk: Path) -> dict[str, float]:
    """CPU, memory, disk, network and GPUs of this machine now, as `system/node-N/...`.

    One process per node asks. CPU use is the mean since the last call in this process (0 at the first);
    network counters run since this process began; GPU memory counts all processes on it.

    Args:
        node: Number of the node, from 0.
        disk: A folder on the disk that fills up, e.g. the output folder, which this node may lack: then
            the disk that would take it.

    Returns:
        Values in percent and MB (10^6 bytes); what cannot be found out here is left out.
    """
    memory = psutil.virtual_memory()
    found = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_percentage": memory.percent,
        "system_memory_usage_megabytes": memory.used / _MB,
    }
    try:
        use = psutil.disk_usage(str(next(place for place in (disk, *disk.parents) if place.is_dir())))
        found |= {"disk_usage_percentage": use.percent, "disk_available_megabytes": use.free / _MB}
    except OSError:
        pass
    network = psutil.net_io_counters()
    if network is not None:
        before = _network_before or network
        found["network_receive_megabytes"] = (network.bytes_recv - before.bytes_recv) / _MB
        found["network_transmit_megabytes"] = (network.bytes_sent - before.bytes_sent) / _MB
    found |= _gpus()
    return {f"system/node-{node}/{name}": float(value) for name, value in found.items()}


def _gpus() -> dict[str, float]:
    found: dict[str, float] = {}
    # A process that has not touched its GPU yet is not made to do so by this.
    used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if not used:
        return found
    for number in range(torch.cuda.device_count()):
        try:
            free, total = torch.cuda.mem_get_info(number)
        except RuntimeError:  # another process has it for itself
            continue
        found[f"gpu_{number}_memory_usage_percentage"] = 100 * (total - free) / total
        found[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / _MB
        try:
            found[f"gpu_{number}_utilization_percentage"] = float(torch.cuda.utilization(number))
            found[f"gpu_{number}_power_usage_watts"] = torch.cuda.power_draw(number) / 1000
        except (ModuleNotFoundError, RuntimeError, AttributeError):  # needs nvidia-ml-py
            continue
    return found
