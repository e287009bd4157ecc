"""A real `mlflow server` for tests: SQLite, artifacts served by the server itself, on loopback."""

import subprocess
import sys
import urllib.request
from pathlib import Path

from services.processes import HOST, ProcessGroup, free_ports, wait_until

_ENV = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # no job runner and its consumers beside the server
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowServer:
    """A tracking server that can be killed and started again with the same address and database."""

    def __init__(self, folder: Path) -> None:
        self._group = ProcessGroup(folder)
        self._folder = folder
        self._port = free_ports(1)[0]
        self.uri = f"http://{HOST}:{self._port}"

    def start(self) -> "MlflowServer":
        """Start (again) and return once it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(self._port)]
        database = f"sqlite:///{self._folder}/mlflow.db"
        storage = [
            "--backend-store-uri",
            database,
            "--artifacts-destination",
            str(self._folder / "artifacts"),
        ]
        process = self._group.start("mlflow", [*command, *storage, "--workers", "1"], _ENV)
        try:
            self._wait(process)
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """End it at once, as a crash would; runs and artifacts stay on disk."""
        self._group.sweep()

    def close(self) -> None:
        """End it for good."""
        self._group.close()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        wait_until(self._answers, "mlflow server", process, self._group.output("mlflow"), timeout=120)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
