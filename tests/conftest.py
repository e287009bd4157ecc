"""Where tests find reference data, and what happens when it is missing."""

import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# Tests and the processes they start share few cores: more threads than cores slow torch down tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run, so that a failure comes from a change; new ones each time in `make soak`.
settings.register_profile("seeded", derandomize=True, database=None)
settings.register_profile("random", print_blob=True)
settings.load_profile("random" if os.environ.get("HVC_SOAK") else "seeded")

# Started in the background by a shell, tests would hand an ignored Ctrl-C on to all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["services_fixtures", "training_fixtures"]

ROOT = Path(__file__).resolve().parents[1]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests said that were tried again (`--reruns`): a rare failure is a failure to look into."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"tried again: {report.nodeid}", red=True, bold=True)
        terminalreporter.write_line(report.longreprtext)


def required(thing: str) -> bool:
    """Whether `HVC_REQUIRE` (comma-separated) turns a missing `thing` into a failure."""
    return thing in os.environ.get("HVC_REQUIRE", "").split(",")


def missing(thing: str, why: str) -> None:
    """Skip with the reason, or fail where the thing is required."""
    if required(thing):
        pytest.fail(f"{why} (and HVC_REQUIRE={os.environ['HVC_REQUIRE']} demands it)", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session", autouse=True)
def _own_state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Submissions are put on a list in the user's state folder; those of tests must not be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


class Golden:
    """Reference numbers of the official implementations."""

    def __init__(self, folder: Path, letter: str) -> None:
        self.folder, self.letter = folder, letter
        self.recipe = _load_module(folder / "common" / "recipe.py")

    def load(self, name: str) -> Any:
        """An npz (or other file's path) of the chosen set."""
        path = self.folder / self.letter / name
        return np.load(path) if path.suffix == ".npz" else path

    def common(self, name: str) -> Path:
        """A file that all sets share."""
        return self.folder / "common" / name


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data (HVC_SHARED, by default beside the checkout)."""
    folder = Path(os.environ.get("HVC_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        missing("shared", f"no reference data at {folder}; set HVC_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The chosen set of golden numbers (HVC_GOLDEN, HVC_GOLDEN_SET)."""
    shared_folder = Path(os.environ.get("HVC_SHARED", ROOT.parent / "shared"))
    folder = Path(os.environ.get("HVC_GOLDEN", shared_folder / "golden"))
    letter = os.environ.get("HVC_GOLDEN_SET", "a")
    if not (folder / letter).is_dir():
        missing("shared", f"no golden set {letter!r} in {folder}; set HVC_GOLDEN and HVC_GOLDEN_SET")
    return Golden(folder, letter)
