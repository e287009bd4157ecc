"""Whether Python and the installed packages are what the project declares. None of them is imported."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from hvc.slurm.checks import Check

_SHOWN = ("torch", "deepspeed", "mlflow", "webdataset")


def check_python() -> Iterator[Check]:
    """This interpreter against what the project asks for."""
    from packaging.specifiers import SpecifierSet

    here = platform.python_version()
    try:
        wanted = metadata("hvc")["Requires-Python"]
    except PackageNotFoundError:
        advice = "Run `make setup` (or `pip install -e .`) in the checkout."
        yield Check("python", "fail", f"{here}; hvc itself is not installed", advice)
        return
    if SpecifierSet(wanted).contains(here, prereleases=True):
        yield Check("python", "ok", f"{here} at {sys.executable}")
    else:
        yield Check(
            "python", "fail", here, f"Install a Python {wanted} and make a new environment with it."
        )


def check_packages() -> Iterator[Check]:
    """Installed versions against the ranges that the project declares."""
    try:
        wrong = wrong_packages(requires("hvc") or [])
    except PackageNotFoundError:
        yield Check("packages", "fail", "hvc itself is not installed", "Run `make setup` in the checkout.")
        return
    if wrong:
        found = ", ".join(f"{requirement} ({here or 'missing'})" for requirement, here in wrong.items())
        wanted = " ".join(f"'{requirement}'" for requirement in wrong)
        yield Check("packages", "fail", found, f"Run: pip install {wanted}")
        return
    yield Check("packages", "ok", ", ".join(f"{name} {version(name)}" for name in _SHOWN))


def wrong_packages(requirements: list[str]) -> dict[str, str | None]:
    """Requirements that are not met here -> the version installed (None: missing); extras are left out."""
    from packaging.requirements import Requirement

    wrong: dict[str, str | None] = {}
    for text in requirements:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            here = version(need.name)
        except PackageNotFoundError:
            wrong[f"{need.name}{need.specifier}"] = None
            continue
        if not need.specifier.contains(here, prereleases=True):
            wrong[f"{need.name}{need.specifier}"] = here
    return wrong
