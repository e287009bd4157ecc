"""A sweep on this machine alone: the same files and records as on a cluster, without Slurm."""

import json
import time

import pytest
from evaluation_video import make_video
from running import clean_env, hvc_json, make_images

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
def test_a_sweep_of_two_of_which_one_fails(tmp_path):
    make_images(tmp_path / "photos", 6)
    make_video(frames=3).write(tmp_path / "clips" / "clip")
    env = clean_env() | {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    (tmp_path / "here.yaml").write_text(
        json.dumps({"name": "here", "executor": "local", "tasks_per_node": 1, "max_requeues": 0})
    )
    pipeline = {
        "name": "both",
        "shard": {"parts": 2, "config": {"inputs": [{"source": "folder", "address": "photos"}]}},
        "train": {
            "config": {
                "batch_size": 3,
                "steps": 2,
                "workers": 0,
                "views.size": 32,
                "non_finite": {"policy": "stop", "limit": 1},
                "tracking": {"upload_encoder": "none", "pictures": 0},
            }
        },
        "sweep": {"grid": {"learning_rate": [1e30, 0.001]}},
        "evaluate": [{"config": {"benchmark": "folder", "data": "clips", "protocol": {"input_size": 64}}}],
    }
    (tmp_path / "both.yaml").write_text(json.dumps(pipeline))
    command = ("submit", "pipeline", "both.yaml", "--cluster", "here.yaml")
    hvc_json(*command, cwd=tmp_path, **env)
    again = hvc_json(*command, cwd=tmp_path, **env)
    assert {row["state"] for row in again["tasks"]} <= {"done", "under way"}
    path, end = tmp_path / "pipelines" / "both" / "report.json", time.monotonic() + 500
    while not path.exists():
        assert time.monotonic() < end, logs(tmp_path)
        time.sleep(0.5)
    report = json.loads(path.read_text())
    states = [row["state"] for row in report["tasks"]]
    assert states == ["done", "failed", "done", "not begun", "done"], (report, logs(tmp_path))
    assert report["tasks"][-1]["score"] is not None
    assert "not finite" in report["failed"]["train/learning_rate=1e+30"]
    planned = hvc_json(*command, "--dry-run", cwd=tmp_path, **env)
    assert [row["state"] for row in planned["tasks"]] == [
        "done",
        "to submit",
        "done",
        "to submit",
        "done",
        "to submit",
    ]


def logs(folder):
    found = [path for path in sorted(folder.rglob("*")) if path.suffix in (".out", ".log")]
    return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in found)
