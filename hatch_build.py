"""Where the repository's folders go in a wheel: all below the one import name `hvc`."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOMS = ("base", "data_prep", "pretrain", "evaluation", "slurm", "demo", "configs")


class Rooms(BuildHookInterface):
    """An editable install gets none of this: there, `hvc.py` finds the rooms beside itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Map the door and the rooms into the wheel."""
        if version == "standard":
            build_data["force_include"]["hvc.py"] = "hvc/__init__.py"
            for room in ROOMS:
                build_data["force_include"][room] = f"hvc/{room}"
