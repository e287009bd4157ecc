"""Installs what the tests talk to, from Debian: Slurm, the Ceph RADOS Gateway and a browser.

Silent and instant where they are there already. Without root or apt it says what is missing and
that those tests will skip; with HVC_REQUIRE=services that is a failure.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {
    "radosgw": "radosgw",
    "radosgw-admin": "radosgw",
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "ceph": "ceph-common",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}
"""Command -> the Debian package that holds it."""

S3_COMMANDS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph")
BROWSER_COMMANDS = ("chromium", "chromedriver")
SLURM_COMMANDS = ("slurmctld", "slurmd", "sbatch")

_POLICY = Path("/usr/sbin/policy-rc.d")


def find(command: str) -> str | None:
    """A command's path; daemons live in sbin, which PATH often lacks."""
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def missing_packages(commands: tuple[str, ...] = tuple(PACKAGES)) -> list[str]:
    """Debian packages that would bring the commands not found."""
    return sorted({PACKAGES[command] for command in commands if find(command) is None})


def main() -> int:
    """Install what is missing; the exit code is 1 only where HVC_REQUIRE has services."""
    packages = missing_packages()
    if not packages:
        return 0
    problem = _obstacle() or _install(packages)
    if problem is None:
        return 0
    sys.stderr.write(
        f"{problem}\nTests against real services will skip. On Debian, as root:\n"
        f"  apt-get install --no-install-recommends {' '.join(packages)}\n"
    )
    return 1 if "services" in os.environ.get("HVC_REQUIRE", "").split(",") else 0


def _obstacle() -> str | None:
    if shutil.which("apt-get") is None:
        return "No apt-get here to install Slurm, Ceph and Chromium with."
    if os.geteuid() != 0:
        return "Installing Slurm, Ceph and Chromium needs root."
    return None


def _install(packages: list[str]) -> str | None:
    sys.stderr.write(f"installing {', '.join(packages)} for the tests (about a minute)\n")
    with _no_autostart():
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", "-q", *arguments],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                return f"apt-get {arguments[0]} failed:\n{done.stdout[-2000:]}"
    left = missing_packages()
    return f"Still missing after the installation: {', '.join(left)}" if left else None


@contextmanager
def _no_autostart() -> Iterator[None]:
    """Packages start their daemons unless a policy forbids it; somebody else's policy stays."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
