"""From a cluster's file to the sbatch script: held to properties, and to one script word for word."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.errors import UsageError
from hvc.slurm.cluster import ClusterConfig
from hvc.slurm.plan import parameters, python_command, setup_lines
from hvc.slurm.submit import sbatch_text

GOLDEN = Path(__file__).with_name("golden_sbatch")
CLUSTERS = Path(__file__).parents[2] / "configs" / "clusters"
WORD = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)


@st.composite
def clusters(draw):
    gpus = draw(st.integers(0, 8))
    minutes = draw(st.integers(1, 5000))
    return ClusterConfig(
        name="c",
        partition=draw(st.none() | WORD),
        account=draw(st.none() | WORD),
        nodes=draw(st.integers(1, 64)),
        tasks_per_node=draw(st.integers(1, gpus or 32)),
        gpus_per_node=gpus,
        cpus_per_task=draw(st.integers(1, 64)),
        memory_gb=draw(st.none() | st.floats(0.5, 2000)),
        time_minutes=minutes,
        grace_seconds=draw(st.integers(1, minutes * 60 - 1)),
        environment=draw(
            st.dictionaries(st.sampled_from(["A", "B_1"]), st.text("a '\"$`\\;\t", max_size=9))
        ),
    )


def options(text: str) -> dict[str, str | None]:
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    pairs = [shlex.split(line)[0].partition("=") for line in lines]
    return {key: value or None for key, _, value in pairs}


@given(clusters())
def test_sbatch_gets_what_the_file_says_and_nothing_it_leaves_open(cluster):
    found = options(sbatch_text(cluster, "hvc-train", Path("/jobs/one")))
    optional = {
        "partition": cluster.partition,
        "account": cluster.account,
        "gpus-per-node": str(cluster.gpus_per_node) if cluster.gpus_per_node else None,
        "mem": f"{round(cluster.memory_gb * 1024)}M" if cluster.memory_gb else None,
    }
    assert found == {
        "job-name": "hvc-train",
        "nodes": str(cluster.nodes),
        "ntasks-per-node": str(cluster.tasks_per_node),
        "cpus-per-task": str(cluster.cpus_per_task),
        "time": str(cluster.time_minutes),
        "signal": f"USR2@{cluster.grace_seconds}",
        "requeue": None,
        "open-mode": "append",
        "output": "/jobs/one/logs/slurm-%j.out",
        **{key: value for key, value in optional.items() if value is not None},
    }


@given(st.none() | st.text(max_size=90))
def test_a_name_in_the_queue_is_a_word(name):
    from hvc.slurm.stages import find
    from hvc.slurm.submit import name_in_queue

    assert re.fullmatch(r"hvc-train(-[A-Za-z0-9._-]+)?", name_in_queue(find("train"), name))
    assert len(name_in_queue(find("train"), name)) <= 64
    assert name_in_queue(find("train"), "coco 2017/run") == "hvc-train-coco-2017-run"
    assert name_in_queue(find("train"), "train") == name_in_queue(find("train"), "") == "hvc-train"


@given(clusters())
def test_srun_gets_the_cpus_and_appends_to_a_log_per_rank(cluster):
    line = next(
        line for line in sbatch_text(cluster, "hvc", Path("/jobs")).splitlines() if line.startswith("srun ")
    )
    words = shlex.split(line)
    assert f"--cpus-per-task={cluster.cpus_per_task}" in words
    assert {"--cpu-bind=none", "--kill-on-bad-exit=1", "--open-mode=append"} <= set(words)
    assert [word for word in words if word.startswith("--output=")] == ["--output=/jobs/logs/slurm-%j.out"]


@given(clusters())
def test_the_environment_arrives_as_written(cluster):
    words = [shlex.split(line) for line in setup_lines(cluster)]
    assert words == [["export", f"{key}={value}"] for key, value in cluster.environment.items()]


def test_the_cluster_has_the_last_word():
    cluster = ClusterConfig(
        name="c",
        srun_args=["--mpi=pmi2"],
        sbatch={"wckey": "vision", "exclusive": True},
        setup=["module load cuda"],
    )
    text = sbatch_text(cluster, "hvc", Path("/jobs"))
    assert options(text) | {"wckey": "vision", "exclusive": None} == options(text)
    assert parameters(cluster, "hvc", Path("/jobs"))["srun_args"][-1] == "--mpi=pmi2"
    assert text.index("module load cuda") < text.index("srun ")


def test_the_script_is_this_one():
    cluster = ClusterConfig(
        name="golden",
        partition="gpu",
        account="vision",
        qos="long",
        constraint="a100|h100",
        nodes=4,
        tasks_per_node=8,
        gpus_per_node=8,
        cpus_per_task=12,
        memory_gb=480,
        time_minutes=1440,
        grace_seconds=300,
        setup=["module load cuda/12.4"],
        python="/shared/venv/bin/python",
        interface="ib0",
        s3_endpoint="https://s3.example.org",
        mlflow="https://mlflow.example.org",
        scratch="/scratch/$USER/$SLURM_JOB_ID",
        signal="TERM",
        environment={"NOTE": "it's quoted"},
        srun_args=["--mpi=pmi2"],
        sbatch={"exclusive": True},
    )
    assert (
        sbatch_text(cluster, "hvc-train", Path("/shared/jobs/train-1"))
        == (GOLDEN / "every-key.txt").read_text()
    )


@pytest.mark.parametrize("file", sorted(path.stem for path in CLUSTERS.glob("*.yaml")))
def test_the_script_of_an_example_is_this_one(file):
    cluster = ClusterConfig.load(CLUSTERS / f"{file}.yaml")
    own = {} if cluster.container else {"python": "/venv/bin/python"}
    given = cluster.model_copy(update=own | {"folder": "/shared/slurm-jobs"})
    text = sbatch_text(given, "hvc-train", Path("/shared/slurm-jobs/train-1"))
    assert text == (GOLDEN / f"{file}.txt").read_text()


def test_a_container_gets_its_folders_and_the_node_fills_in_the_scratch_folder(tmp_path):
    cluster = ClusterConfig(
        name="c",
        folder="/shared/jobs",
        shared=["/shared", "/two words"],
        scratch=f"{tmp_path}/$SLURM_JOB_ID",
        gpus_per_node=1,
        container={
            "image": "/h v c.sif",
            "command": "echo",
            "binds": ["/a:/b"],
            "arguments": ["-c"],
        },
    )
    lines = [*setup_lines(cluster), python_command(cluster)]
    environment = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == (
        f"exec --nv --bind=/shared/jobs --bind=/shared --bind=/two words --bind=/a:/b --bind={tmp_path}/7 "
        "-c /h v c.sif python3"
    )
    assert (tmp_path / "7").is_dir()


def test_the_template_shows_every_key_with_its_default():
    import yaml

    shown = yaml.safe_load((CLUSTERS / "template.yaml").read_text())
    defaults = ClusterConfig(name=shown["name"]).resolved()
    assert shown == defaults


@pytest.mark.parametrize("key", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "db_password", "MY_CREDENTIALS"])
def test_secrets_are_refused_and_told_where_to_go(key):
    with pytest.raises(UsageError, match=r"~/\.aws/credentials") as caught:
        ClusterConfig.parse({"name": "c", "environment": {key: "hunter2"}})
    assert key in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"environment": ["MY_SECRET=hunter2"]},
        {"environment": {"MY_SECRET=hunter2": None}},
        {"environment": {"MY_SECRET": ["hunter2"]}},
        {"environment": {"PLAIN": ["hunter2"]}},
        {"environment": {"HTTPS_PROXY": "http://user:hunter2@proxy:3128"}},
        {"setup": ["module load cuda", "export AWS_SECRET_ACCESS_KEY=hunter2"]},
        {"setup": ["HF_TOKEN='hunter2' ./login"]},
        {"setup": "export HF_TOKEN=hunter2"},
        {"setup": [{"export HF_TOKEN": "hunter2"}]},
        {"python": "env HF_TOKEN=hunter2 python"},
        {"srun_args": ["--export=ALL,HF_TOKEN=hunter2"]},
        {"sbatch": {"export": "ALL,HF_TOKEN=hunter2"}},
        {"sbatch": ["export=HF_TOKEN=hunter2"]},
    ],
)
def test_a_secret_anywhere_is_refused_and_never_shown(values):
    with pytest.raises(UsageError, match=next(iter(values))) as caught:
        ClusterConfig.parse({"name": "c", **values})
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_is_only_read_may_stay():
    lines = ["export HF_TOKEN=$(cat ~/.token)", 'export AWS_PROFILE="$USER"', "source venv/bin/activate"]
    assert ClusterConfig.parse({"name": "c", "setup": lines}).setup == lines


def test_numbers_in_the_environment_need_no_quotes():
    cluster = ClusterConfig.parse({"name": "c", "environment": {"OMP_NUM_THREADS": 1, "SHARE": 0.5}})
    assert setup_lines(cluster) == ["export OMP_NUM_THREADS=1", "export SHARE=0.5"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus_per_node": 4, "tasks_per_node": 8}, "every process needs a GPU"),
        ({"time_minutes": 2, "grace_seconds": 120}, "grace_seconds"),
        ({"partion": "gpu"}, "did you mean 'partition'"),
        ({"environment": {"A B": "1"}}, "no name for an environment variable"),
    ],
)
def test_what_cannot_work_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        ClusterConfig.parse({"name": "c", **values})
