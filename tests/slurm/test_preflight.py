"""What cannot run is refused before it is queued, with the mend; a dry run says the same as warnings."""

import http.server
import socket
import threading
from pathlib import Path

import pytest
from running import hvc_json, make_images, run_hvc, write_recipe

from hvc.base.errors import HvcError
from hvc.pretrain.recipe import TrainConfig
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.places import places_of
from hvc.slurm.preflight import preflight
from hvc.slurm.submit import submit


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """No S3 or MLflow of the machine that runs the tests, and a folder of its own to be started in."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("sharded")
    make_images(folder / "images", 4)
    hvc_json("shard", "folder", "images", "data", cwd=folder)
    return str(folder / "data")


@pytest.fixture
def dead() -> str:
    """An address that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def findings(config: TrainConfig, cluster: ClusterConfig, waits: bool = False) -> dict[str, str]:
    """All that is wrong, by name; what only depends on this machine's disk is left out."""
    found = preflight(places_of("train", config), cluster, "", waits)
    kept = [check for check in found if not (check.status == "warn" and "disk" in check.advice)]
    return {check.name: f"{check.status}: {check.found}. {check.advice}" for check in kept}


def local(**values) -> ClusterConfig:
    return ClusterConfig(**{"name": "c", "executor": "local", "cpus_per_task": 8, **values})


def test_what_is_in_order_is_not_spoken_of(data):
    assert findings(TrainConfig(data=data), local()) == {}


def test_data_that_is_not_there(data, tmp_path):
    config = TrainConfig(data=[data, str(tmp_path / "nowhere")])
    found = findings(config, local())
    assert list(found) == ["data"]
    assert "fail: no dataset at" in found["data"]
    assert "`hvc shard` makes one" in found["data"]
    assert findings(config, local(), waits=True) == {}, "the job before makes it"


def test_servers_of_the_clusters_file_are_those_that_are_looked_for(data, dead, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    found = findings(TrainConfig(data="s3://bucket/photos"), local(s3_endpoint=dead, mlflow=dead))
    assert set(found) == {"S3 endpoint", "MLflow"}
    assert all(dead in text and text.startswith("fail") for text in found.values())
    assert findings(TrainConfig(data=data), local()) == {}, "the environment is as it was"


class WantsLogin(http.server.BaseHTTPRequestHandler):
    """What a proxy with a login answers to one who has not sent it."""

    def do_GET(self):
        self.send_error(401)

    def log_message(self, *words):
        pass


def test_a_server_behind_a_login_is_no_reason_to_refuse(data):
    with http.server.HTTPServer(("127.0.0.1", 0), WantsLogin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        found = findings(TrainConfig(data=data, tracking={"uri": uri}), local())
        server.shutdown()
    assert list(found) == ["MLflow"]
    assert found["MLflow"].startswith("warn")
    assert "MLFLOW_TRACKING_USERNAME" in found["MLflow"]


def test_paths_that_the_nodes_do_not_see(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    config = TrainConfig(data=data)
    assert findings(config, ClusterConfig(name="c", cpus_per_task=3, shared=[str(tmp_path.parent)])) == {}
    found = preflight(places_of("train", config), ClusterConfig(name="c", shared=["/shared"]), "")
    outside = [check.found for check in found if check.name == "shared storage"]
    assert [text.split()[0] for text in outside] == [
        str(tmp_path / "slurm-jobs"), str(tmp_path / "outputs/hvc"), data
    ]  # fmt: skip


def test_fewer_cpus_than_workers_and_idle_gpus_are_warnings(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = ClusterConfig(
        name="c", cpus_per_task=4, gpus_per_node=8, tasks_per_node=2, shared=[str(tmp_path.parent)]
    )
    found = findings(TrainConfig(data=data, workers=4), cluster)
    assert found["CPUs per task"].startswith("warn: 4 loader workers and the process itself share 4 CPUs")
    assert "Set cpus_per_task to 5" in found["CPUs per task"]
    assert "2 processes on a node with 8 GPUs" in found["GPUs"]


@pytest.mark.services
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"partition": "batsh"}, ["there is no 'batsh' here", "did you mean batch?"]),
        ({"time_minutes": 61}, ["allows 60 minutes, time_minutes is 61", "requeued at the limit"]),
        ({"nodes": 3}, ["gives a job 2 nodes at most, 3 are asked for"]),
        ({"cpus_per_task": 5}, ["has 4 CPUs, 5 are asked for"]),
        ({"memory_gb": 16}, ["16000 MiB of memory, 16384"]),
        ({"gpus_per_node": 1}, ["has 0 GPUs, 1"]),
        ({"constraint": "h100"}, ["sbatch refused the job", "feature"]),
        ({"mlflow": "http://127.0.0.1:1"}, ["http://127.0.0.1:1 does not answer", "Start the server"]),
        ({"folder": "/proc/jobs"}, ["job folder: cannot write to /proc", "Set `folder`"]),
    ],
)
def test_a_real_cluster_is_not_asked_for_what_it_cannot_give(slurm_env, data, values, words):
    cluster = ClusterConfig(**{"name": "c", "partition": "batch", "cpus_per_task": 3, **values})
    with pytest.raises(HvcError) as caught:
        submit("train", TrainConfig(data=data), cluster)
    for word in words:
        assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert not Path("slurm-jobs").exists()
    assert slurm_env.run("squeue", "-h") == ""
    shown = submit("train", TrainConfig(data=data), cluster, dry_run=True)
    assert [check for check in shown.findings if check.status == "fail"]


@pytest.mark.services
def test_options_that_win_over_the_files_keys_are_left_to_sbatch(slurm_env, data, tmp_path):
    cluster = ClusterConfig(
        name="c",
        partition="nowhere",
        cpus_per_task=3,
        shared=[str(tmp_path.parent)],
        sbatch={"partition": "batch"},
    )
    shown = submit("train", TrainConfig(data=data), cluster, dry_run=True)
    assert not [check for check in shown.findings if check.status == "fail"]


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Call it for a `sinfo` that runs a line of shell, and a `sbatch` that takes everything."""

    def make(sinfo: str) -> None:
        (tmp_path / "bin").mkdir()
        for name, line in {"sinfo": sinfo, "sbatch": "exit 0"}.items():
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
            (tmp_path / "bin" / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    return make


@pytest.mark.parametrize("key", ["cpus-per-task", "cpus_per_task"])
def test_either_spelling_of_an_option_wins(data, commands, key):
    commands("echo 'batch*|up|1:00:00|1-infinite|2|4|16000|(null)'")
    asked = ClusterConfig(name="c", cpus_per_task=9)
    assert "CPUs" in findings(TrainConfig(data=data), asked)
    assert "CPUs" not in findings(TrainConfig(data=data), asked.model_copy(update={"sbatch": {key: 2}}))


def test_a_controller_that_is_silent_is_no_defect_of_ours(data, commands, monkeypatch):
    monkeypatch.setattr("hvc.slurm.preflight._SECONDS", 2.0)
    commands("exec sleep 60")
    found = findings(TrainConfig(data=data), ClusterConfig(name="c"))
    assert "sinfo gave no answer within 2 s. See `scontrol ping`" in found["Slurm"]


@pytest.mark.services
def test_an_output_folder_that_takes_no_file(slurm_env, data):
    cluster = ClusterConfig(name="c", partition="batch", cpus_per_task=3)
    with pytest.raises(HvcError, match="output: cannot write to /proc") as caught:
        submit("train", TrainConfig(data=data, output="/proc/run"), cluster)
    assert "Choose another `output`" in str(caught.value)


@pytest.mark.services
def test_what_a_dry_run_prints_is_what_sbatch_takes(slurm_env, data, tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", data)
    small = ClusterConfig(
        name="small",
        partition="batch",
        nodes=2,
        tasks_per_node=2,
        time_minutes=30,
        scratch="/tmp/$USER",
        interface="lo",
        shared=["/tmp"],
        environment={"NOTE": "it's quoted"},
    )
    (tmp_path / "small.yaml").write_text(small.to_yaml())
    words = ("submit", "train", str(recipe), "--cluster", "small.yaml", "--dry-run")
    done = run_hvc(*words, cwd=tmp_path, **slurm_env.env)
    assert done.returncode == 0, done.stderr
    (tmp_path / "job.sh").write_text(done.stdout)
    slurm_env.run("sbatch", "--test-only", str(tmp_path / "job.sh"))
    assert "#   batch_size: 8" in done.stdout  # the resolved config, which sbatch reads over
    assert not (tmp_path / "slurm-jobs").exists()


def test_a_dry_run_needs_neither_slurm_nor_data(tmp_path):
    recipe = write_recipe(tmp_path / "recipe.yaml", str(tmp_path / "nowhere"))
    (tmp_path / "c.yaml").write_text("name: c")
    words = ("submit", "train", str(recipe), "--cluster", "c.yaml", "--dry-run")
    done = run_hvc(*words, cwd=tmp_path, PATH=str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.startswith("#!/bin/bash")
    assert "fail: data: no dataset at" in done.stderr
