"""`submission.json`: what was submitted, as which job, and where its output goes; one per folder."""

import getpass
import json
import os
import re
import shlex
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from hvc.base.addresses import public
from hvc.base.errors import HvcError
from hvc.base.files import read_json, write_atomic

FILE = "submission.json"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One submitted job, or one array and the job that joins its parts."""

    job_id: str
    """As Slurm's commands understand it; of a local job the process id of what looks after it."""
    stage: str
    """Name of the stage, as in `hvc submit STAGE`."""
    name: str
    """Name of the run or dataset, else the stage's."""
    submitted: float
    """Unix time in seconds."""
    cluster: str
    """Name in the cluster's file."""
    sbatch: str
    """File name of the script, in this folder."""
    command: str
    """What the user typed; passwords in addresses are left out."""
    user: str
    """Who submitted."""
    workdir: str
    """Folder that it was submitted in; the job runs there."""
    output: str | None = None
    """The stage's output, a folder or an `s3://` address."""
    tracking_uri: str | None = None
    """MLflow's address without password, where the config or the cluster's file names one."""
    parent: str | None = None
    """Folder of the pipeline or sweep that it is part of."""
    parent_name: str | None = None
    """Name of that."""
    array: int | None = None
    """Number of tasks of an array."""
    join_job_id: str | None = None
    """Job that joins the parts of an array; its files are in the same folder."""
    local: bool = False
    """Whether it runs as processes of the submitting machine, without Slurm."""
    version: int = VERSION

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The submission in a folder; HvcError where there is none, or one of another version."""
        values = read_json(folder / FILE)
        if values is None:
            raise HvcError(f"{folder} holds no submission (no whole {FILE}); `hvc jobs` lists them")
        return cls._of(values, folder)

    @classmethod
    def _of(cls, values: dict[str, Any], folder: Path) -> Self:
        if values.get("version") != VERSION:
            raise HvcError(
                f"{folder / FILE} is of version {values.get('version')}, this hvc reads {VERSION}; "
                "use the hvc that submitted it"
            )
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    @property
    def group(self) -> str | None:
        """What the pipeline or sweep is called that it is part of."""
        return self.parent_name or (Path(self.parent).name if self.parent else None)

    def write(self, folder: Path) -> None:
        """Write or replace it, at once."""
        write_atomic(folder / FILE, json.dumps(asdict(self), indent=1) + "\n")


def submissions(root: Path) -> list[tuple[Path, Submission]]:
    """Every submission in a folder such as `slurm-jobs`, with its own folder, oldest first.

    One file is read per submission; folders without one, or with one of another version, are left out.
    """
    found = []
    try:
        folders = [Path(entry.path) for entry in os.scandir(root)]
    except OSError:
        return []
    for folder in folders:
        values = read_json(folder / FILE)
        if values is not None and values.get("version") == VERSION:
            found.append((folder, Submission._of(values, folder)))
    return sorted(found, key=lambda pair: (pair[1].submitted, pair[0].name))


def this_command() -> str:
    """The command line of this process for people, as `hvc ...`, without what may be secret."""
    return shlex.join(["hvc", *map(_shown, sys.argv[1:])])


def this_user() -> str:
    """The user's login name, or number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _shown(word: str) -> str:
    # `key=http://user:password@host` hides an address behind a key
    key, equals, value = word.partition("=") if re.match(r"[\w.-]+=\w+://", word) else ("", "", word)
    return f"{key}{equals}{public(value) if '://' in value else value}"
