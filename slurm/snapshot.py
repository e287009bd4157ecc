"""What a submitted job runs from, however the checkout changes meanwhile: its code, config and versions.

    snapshot/code/hvc/        the package as it was, first on the job's path
    snapshot/config.yaml      the stage's config, all values resolved
    snapshot/cluster.yaml     the cluster's file, all values resolved
    snapshot/packages.txt     what was installed, as `name==version` lines for `pip install -r`

Nothing of the environment is in it, and configs hold no secrets.
"""

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from hvc.base.code_origin import NOTE, code_origin
from hvc.base.config import Config
from hvc.slurm.cluster import ClusterConfig

ROOT = Path(__file__).resolve().parents[1]
"""Folder of the rooms: a checkout, or the installed package."""
FOLDER = "snapshot"
_ROOMS = ("base", "data_prep", "pretrain", "evaluation", "slurm", "demo", "configs")
_ENDINGS = {".py", ".js", ".css", ".html", ".json", ".yaml"}
"""What is code; a file of credentials or a data set that happens to lie in a checkout is none."""


def code_path(folder: Path) -> Path:
    """What a job of the submission in `folder` has first on its path."""
    return folder / FOLDER / "code"


def take(folder: Path, config: Config, cluster: ClusterConfig) -> Path:
    """Write the snapshot of a submission, and give its folder; takes a fraction of a second.

    OSError where the folder takes no files.
    """
    snapshot, package = folder / FOLDER, code_path(folder) / "hvc"
    for source, name in _files():
        target = package / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o444)
    _write(package / NOTE, json.dumps(code_origin(ROOT)) + "\n")
    _write(snapshot / "config.yaml", config.to_yaml())
    _write(snapshot / "cluster.yaml", cluster.to_yaml())
    _write(snapshot / "packages.txt", "".join(f"{line}\n" for line in installed()))
    return snapshot


def installed() -> list[str]:
    """`name==version` of every installed package but this one, sorted."""
    found = {item.name.lower().replace("_", "-"): item.version for item in distributions() if item.name}
    return [f"{name}=={version}" for name, version in sorted(found.items()) if name != "hvc"]


def changed_packages(folder: Path) -> list[str]:
    """What is installed in another version now than when the submission in `folder` was made.

    For instance `torch==2.13.0, now 2.14.0`; packages that came since don't count.
    """
    try:
        text = (folder / FOLDER / "packages.txt").read_text(encoding="utf-8")
    except OSError:  # nobody knows any more; no reason to end a job
        return []
    now = dict(line.split("==", 1) for line in installed())
    then = dict(line.split("==", 1) for line in text.splitlines())
    return [
        f"{name}=={version}, now {now.get(name, 'missing')}"
        for name, version in then.items()
        if now.get(name) != version
    ]


def _files() -> Iterator[tuple[Path, str]]:
    """Every file of the package, and its place below `hvc/`: a checkout's door becomes the package's."""
    door = ROOT / "hvc.py"
    yield (door if door.exists() else ROOT / "__init__.py"), "__init__.py"
    for room in _ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            if path.suffix in _ENDINGS and path.is_file() and not path.name.startswith("."):
                yield path, path.relative_to(ROOT).as_posix()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o444)
