"""Pipelines and sweeps on a real cluster: from photos to scores by one command, and nothing done twice."""

import json

import pytest
from evaluation_video import make_video
from mlflow import MlflowClient
from running import clean_env, hvc_json, make_images, run_hvc

pytestmark = [pytest.mark.services, pytest.mark.slow]
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
SMALL = {
    "batch_size": 6,
    "steps": 2,
    "workers": 0,
    "log_every": 1,
    "views": {"size": 32},
    "tracking": {"upload_encoder": "none", "pictures": 0},
}


class Place:
    """A folder with photos, a clip, a cluster's file and MLflow's database."""

    def __init__(self, cluster, folder):
        self.cluster, self.folder = cluster, folder
        make_images(folder / "photos", 12)
        for name in ("clip", "other"):
            make_video(frames=3).write(folder / "clips" / name)
        shape = {"name": "test", "partition": "batch", "folder": str(folder / "jobs"), "max_requeues": 0}
        self.write("cpu.yaml", shape | {"environment": {"OMP_NUM_THREADS": "1"}})
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.env = clean_env() | cluster.env | {"MLFLOW_TRACKING_URI": self.uri}

    def write(self, name, values):
        (self.folder / name).write_text(json.dumps(values))
        return name

    def submit(self, *words):
        return hvc_json("submit", *words, "--cluster", "cpu.yaml", cwd=self.folder, **self.env)

    def finish(self, report):
        """Wait for the last job; the report of the pipeline."""
        last = report["tasks"][-1]["job_id"]
        self.cluster.wait(last, ENDED, timeout=300)
        assert self.cluster.job(last)["JobState"] == "COMPLETED", self.logs()
        return json.loads(next(self.folder.glob("pipelines/*/report.json")).read_text())

    def logs(self):
        found = sorted((self.folder / "jobs").rglob("*.out")) + sorted(
            (self.folder / "jobs").rglob("*.log")
        )
        return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in found)

    def run(self, run_id):
        return MlflowClient(self.uri).get_run(run_id)


@pytest.fixture
def place(slurm_env, tmp_path):
    return Place(slurm_env, tmp_path)


def states(report):
    return {row["key"]: row["state"] for row in report["tasks"]}


@pytest.mark.timeout(900)
def test_from_photos_to_scores_by_one_command(place):
    photos = {"inputs": [{"source": "folder", "address": "photos"}]}
    evaluate = {"benchmark": "folder", "data": "clips", "protocol": {"input_size": 64}}
    pipeline = {
        "name": "small",
        "shard": {"parts": 2, "config": photos | {"min_shards": 4, "workers": 1}},
        "train": {"config": SMALL},
        "evaluate": [{"parts": 2, "config": evaluate}],
    }
    command = ("pipeline", place.write("small.yaml", pipeline))
    first = place.submit(*command)
    assert set(states(first).values()) == {"submitted"}
    again = place.submit(*command)
    assert set(states(again).values()) <= {"done", "under way"}, "submitted twice"
    report = place.finish(first)

    assert report["complete"], (report, place.logs())
    assert report["failed"] == {}
    _, train, scores = report["tasks"]
    assert scores["score"] is not None
    listing = hvc_json("jobs", "--folder", str(place.folder / "jobs"), cwd=place.folder, **place.env)
    jobs = [(one["stage"], job["state"]) for one in listing["submissions"] for job in one["jobs"]]
    assert {state for _, state in jobs} == {"done"}, jobs
    assert sum(stage == "evaluate" for stage, _ in jobs) == 3, "two parts, and the scores"
    parent = place.run(report["run_id"])
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/folder/jf_mean"] == pytest.approx(scores["score"])
    child = place.run(train["run_id"])
    assert child.data.tags["mlflow.parentRunId"] == report["run_id"]
    assert child.info.status == "FINISHED"
    assert scores["run_id"] == train["run_id"], "scores go to the run that they are of"

    made = {path: path.stat().st_mtime_ns for path in (place.folder / "pipelines").rglob("*.tar")}
    done = place.submit(*command)
    assert set(states(done).values()) == {"done"}
    assert len(made) == 4

    evaluate["protocol"]["context"] = 1
    pipeline["shard"]["config"]["workers"] = 2
    place.write("small.yaml", pipeline)
    planned = place.submit(*command, "--dry-run")
    assert states(planned) | {"report": ""} == {
        "shard": "done",
        "train": "done",
        "evaluate-folder": "to submit",
        "report": "",
    }, "another protocol concerns the evaluation alone; how the work is spread, nothing"
    pipeline["train"]["config"] = SMALL | {"steps": 3}
    place.write("small.yaml", pipeline)
    longer = place.submit(*command)
    assert states(longer) == {"shard": "done"} | dict.fromkeys(list(states(longer))[1:], "submitted")
    assert {path: path.stat().st_mtime_ns for path in made} == made
    report = place.finish(longer)
    assert report["complete"], (report, place.logs())
    _, longer_train, longer_scores = report["tasks"]
    assert longer_scores["run_id"] == longer_train["run_id"] != train["run_id"]
    assert place.run(longer_train["run_id"]).data.metrics["train/loss"] is not None
    assert longer_scores["score"] is not None
    assert {path: path.stat().st_mtime_ns for path in made} == made, "nobody touched what was done"

    make_images(place.folder / "photos", 13, seed=1)
    changed = place.submit(*command, "--dry-run")
    assert set(states(changed).values()) == {"to submit"}, "other photos concern everything"


@pytest.mark.timeout(900)
def test_a_sweep_of_four_of_which_one_fails(place):
    hvc_json("shard", "folder", "photos", "dataset", cwd=place.folder)
    diverges = {"non_finite": {"policy": "stop", "limit": 1}}
    recipe = place.write("recipe.yaml", SMALL | diverges | {"name": "small", "data": "dataset"})
    command = ["sweep", recipe, "--grid", "learning_rate=0.001,0.01,1.0e+30,0.0001"]
    command += ["--evaluate", "folder clips protocol.input_size=64"]
    submitted = place.submit(*command)
    report = place.finish(submitted)

    rows = {row["key"]: row for row in report["tasks"]}
    scored = [row for row in rows.values() if row["score"] is not None]
    assert len(scored) == 3, place.logs()
    assert len({row["run_id"] for row in scored}) == 3, "a run for each"
    assert not report["complete"]
    assert set(report["failed"]) == {"train/learning_rate=1e+30", "evaluate-folder/learning_rate=1e+30"}
    assert "not finite" in rows["train/learning_rate=1e+30"]["why"]
    assert rows["evaluate-folder/learning_rate=1e+30"]["state"] == "not begun"
    assert place.run(report["run_id"]).info.status == "FAILED"
    children = MlflowClient(place.uri).search_runs(
        [place.run(report["run_id"]).info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{report['run_id']}'",
    )
    assert len(children) == 4
    board = run_hvc("leaderboard", cwd=place.folder, **place.env).stdout
    assert board.count("failed") == 1
    assert "jf" not in board.splitlines()[-1]
    table = (place.folder / "pipelines" / "small-sweep" / "report.txt").read_text()
    assert "not begun: train/learning_rate=1e+30" in table

    listing = hvc_json("jobs", "--folder", str(place.folder / "jobs"), cwd=place.folder, **place.env)
    (trainings,) = (one for one in listing["submissions"] if one["stage"] == "train")
    assert trainings["parent"] == str(place.folder / "pipelines" / "small-sweep")
    outcomes = {job["task"]: job["state"] for job in trainings["jobs"]}
    assert outcomes == {0: "done", 1: "done", 2: "failed", 3: "done"}
    (why,) = (job["reason"] for job in trainings["jobs"] if job["state"] == "failed")
    assert "not finite" in why

    planned = place.submit(*command, "--dry-run")
    missing = [key for key, state in states(planned).items() if state == "to submit"]
    assert missing == [*report["failed"], "report"], "what failed is tried again, and that alone"


@pytest.mark.timeout(300)
def test_killed_between_two_submissions_the_same_command_goes_on(place):
    """The state is put back to what a kill leaves right after sbatch took the second of three jobs."""
    hvc_json("shard", "folder", "photos", "dataset", cwd=place.folder)
    held = json.loads((place.folder / "cpu.yaml").read_text()) | {"sbatch": {"hold": True}}
    place.write("cpu.yaml", held | {"slow_node_factor": 2.5})
    evaluate = {"config": {"benchmark": "folder", "data": "clips"}}
    pipeline = {"name": "held", "train": {"config": SMALL | {"data": "dataset"}}, "evaluate": [evaluate]}
    command = ("pipeline", place.write("held.yaml", pipeline))
    train, evaluation, report = (row["job_id"] for row in place.submit(*command)["tasks"])
    state_file = place.folder / "pipelines" / "held" / "pipeline.json"
    state = json.loads(state_file.read_text())
    place.cluster.run("scancel", report)
    state["sent"] = [state["sent"][0], state["sent"][1] | {"job_id": None}]
    state_file.write_text(json.dumps(state))

    again = place.submit(*command)["tasks"]
    assert [row["state"] for row in again] == ["under way", "under way", "submitted"]
    assert [row["job_id"] for row in again[:2]] == [train, evaluation]
    queue = place.cluster.run("squeue", "-h", "--me", "-o", "%i").split()
    place.cluster.run("scancel", *queue)
    assert sorted(queue) == sorted(row["job_id"] for row in again)
    assert len(MlflowClient(place.uri).search_runs(["1"])) == 1, "one run, however often it is begun"
    files = [json.loads(path.read_text()) for path in (place.folder / "jobs").glob("*/job.json")]
    assert {(one["max_requeues"], one["slow_node_factor"]) for one in files} == {(0, 2.5)}
