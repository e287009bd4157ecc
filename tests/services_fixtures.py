"""Fixtures of the real servers; each starts on first use and ends with the session (or the test)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import missing
from services.browser import Browser
from services.install import BROWSER_COMMANDS, S3_COMMANDS, SLURM_COMMANDS, missing_packages
from services.mlflow_server import MlflowServer
from services.proxy import KINDS, FaultProxy, Faulty
from services.s3 import S3Server
from services.slurm import SlurmCluster


def _need(server: str, commands: tuple[str, ...]) -> None:
    packages = missing_packages(commands)
    if packages:
        how = "`python tests/services/install.py` as root on Debian brings them"
        missing("services", f"no {server}: the packages {', '.join(packages)} are missing; {how}")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server: `env`, `bucket(name)`, `client()`."""
    _need("S3 server", S3_COMMANDS)
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.close()


@pytest.fixture
def s3_env(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The same server, with this process's environment pointing at it for one test."""
    import boto3

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers the first credentials it saw
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture
def faulty_s3(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """Call it (arguments of FaultProxy after the first) for a bad network between here and `s3_env`."""
    proxies: list[FaultProxy] = []

    def make(
        share: float = 0.05, seed: int = 0, alter: float = 0.0, kinds: tuple[str, ...] = KINDS
    ) -> FaultProxy:
        proxies.append(FaultProxy(s3_env.endpoint, share, seed, alter, kinds))
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxies[-1].url)
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real MLflow server that all tests share: don't kill it."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow")).start()
    yield server
    server.close()


@pytest.fixture
def private_mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], MlflowServer]]:
    """Call it for a started server of one's own, to `kill()` and `start()` again."""
    servers: list[MlflowServer] = []

    def make() -> MlflowServer:
        servers.append(MlflowServer(tmp_path_factory.mktemp("mlflow")))
        return servers[-1].start()

    yield make
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def slurm_cluster_factory(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., SlurmCluster]]:
    """Call it (arguments of SlurmCluster after the folder) for one more cluster."""
    _need("Slurm", SLURM_COMMANDS)
    clusters: list[SlurmCluster] = []

    def make(**options: int) -> SlurmCluster:
        folder: Path = tmp_path_factory.mktemp("slurm")
        clusters.append(SlurmCluster(folder, **options))
        return clusters[-1]

    yield make
    for cluster in clusters:
        cluster.close()


@pytest.fixture(scope="session")
def slurm_cluster(slurm_cluster_factory: Callable[..., SlurmCluster]) -> SlurmCluster:
    """A real Slurm cluster: `env`, `nodes`, `run(*command)`, `job(id)`, `wait(id, states, timeout)`."""
    return slurm_cluster_factory()


@pytest.fixture
def slurm_env(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The same cluster, with this process's environment pointing at it for one test."""
    for name, value in slurm_cluster.env.items():
        monkeypatch.setenv(name, value)
    return slurm_cluster


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser without a window: `open(path)`, `driver`, `complaints()`, `requests()`."""
    _need("browser", BROWSER_COMMANDS)
    chromium = Browser()
    yield chromium
    chromium.close()
