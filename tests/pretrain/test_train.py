"""Training as a user runs it: tracked, killed and resumed, at other numbers of ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mutation import more_in_soak
from running import HVC, clean_env, hvc_json, recorded_steps, run_hvc, start_hvc, write_recipe
from training_tensors import all_tensors, differing

from hvc.pretrain.checkpoints.checkpoint import complete_steps, open_checkpoint
from hvc.pretrain.weights.encoder_file import read_encoder

pytestmark = pytest.mark.slow


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return all_tensors(open_checkpoint(folder / "checkpoints" / f"step-{step:08d}"))


def test_a_run_is_tracked_and_leaves_a_trunk(trained, dataset):
    folder, result = trained
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    run = client.get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["views.size"] == "32"
    steps = [metric.step for metric in client.get_metric_history(result["run_id"], "train/loss")]
    assert steps == [1, 2, 3, 4, 5, 6]
    (used,) = run.inputs.dataset_inputs
    manifest = json.loads((Path(dataset) / "manifest.json").read_text())
    assert used.dataset.digest == manifest["digest"][:32]
    paths = [item.path for item in client.list_artifacts(result["run_id"])]
    assert {"checkpoints", "pictures", "recipe.yaml"} <= set(paths)
    version = client.get_model_version_by_alias("hvc", "newest")
    assert version.tags["hvc.step"] == "6"

    assert complete_steps(folder / "whole" / "checkpoints") == [2, 4, 6]
    state, metadata = read_encoder(Path(result["checkpoint"]) / "encoder.safetensors")
    assert metadata.step == 6
    assert "layer4.1.bn2.running_var" in state
    assert not any(key.startswith("online_encoder") for key in state)


def test_a_finished_run_is_left_as_it_is(trained):
    folder, result = trained
    before = (folder / "whole" / "journal.jsonl").read_bytes()
    again = hvc_json("train", str(folder / "whole.yaml"), cwd=folder)
    assert again["checkpoint"] == result["checkpoint"]
    assert again["run_id"] == result["run_id"]
    assert (folder / "whole" / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("zero_stage", more_in_soak([1], [0]))
def test_killed_and_run_again_equals_never_killed(trained, dataset, tmp_path, zero_stage):
    engine = {"zero_stage": zero_stage}
    folder, name = trained[0], "whole"
    if zero_stage:  # the stages add in another order: equal to rounding only
        folder, name = tmp_path, "whole1"
        run_with_torchrun(write_recipe(tmp_path / "whole1.yaml", dataset, engine=engine))
    recipe = write_recipe(tmp_path / "killed.yaml", dataset, engine=engine)
    child = start_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path, log=tmp_path / "log")
    root = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 120
    while not complete_steps(root) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert complete_steps(root), (tmp_path / "log").read_text()
    assert max(complete_steps(root)) < 6, "the kill came too late to prove anything"

    wait_for_lock(tmp_path / "killed")
    result = hvc_json("train", str(recipe), "--processes", "2", cwd=tmp_path)
    assert result["step"] == 6
    assert differing(weights(tmp_path / "killed", 6), weights(folder / name, 6)) == []
    assert recorded_steps(tmp_path / "killed") == [1, 2, 3, 4, 5, 6]
    assert not list(root.glob(".*"))


def run_with_torchrun(recipe: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--no-python"]
    subprocess.run([*torchrun, *HVC, "train", str(recipe)], cwd=recipe.parent, env=clean_env(), check=True)


def wait_for_lock(folder: Path) -> None:
    # The ranks die with their launcher, but a kernel needs a moment to do it.
    import fcntl

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with (folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.05)
            else:
                return
    pytest.fail("a rank outlived its launcher")


def test_another_number_of_ranks_and_zero_stage_goes_on(trained, dataset, tmp_path):
    """One rank at ZeRO 0 takes over from two at ZeRO 1, bit for bit what was saved."""
    recipe = write_recipe(tmp_path / "moved.yaml", dataset, engine={"zero_stage": 1})
    child = start_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path, log=tmp_path / "log")
    root = tmp_path / "moved" / "checkpoints"
    deadline = time.monotonic() + 120
    while not complete_steps(root) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 75, (tmp_path / "log").read_text()
    stopped_at = max(complete_steps(root))
    assert stopped_at < 6
    before = weights(tmp_path / "moved", stopped_at)
    result = hvc_json("train", str(recipe), "engine.zero_stage=0", "checkpoint.every=1", cwd=tmp_path)
    assert result["step"] == 6
    assert open_checkpoint(root / "step-00000006").state["world_size"] == 1
    after = weights(tmp_path / "moved", stopped_at)
    assert differing(before, after) == []


def test_another_recipe_in_the_same_folder_is_refused(trained):
    folder, _ = trained
    before = (folder / "whole" / "recipe.yaml").read_bytes()
    done = run_hvc("train", str(folder / "whole.yaml"), "learning_rate=0.1", cwd=folder)
    assert done.returncode == 2
    assert "changed: learning_rate" in done.stderr
    assert (folder / "whole" / "recipe.yaml").read_bytes() == before


def test_a_diverged_run_saves_nothing(dataset, tmp_path):
    options = {"learning_rate": 1e30, "log_every": 100, "checkpoint": {"every": 1, "keep": 1}}
    options["non_finite"] = {"limit": 3}
    recipe = write_recipe(tmp_path / "wild.yaml", dataset, **options)
    done = run_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path)
    assert done.returncode == 1
    assert "not finite" in done.stderr
    assert "Traceback" not in done.stderr
    for step in complete_steps(tmp_path / "wild" / "checkpoints"):
        floats = [value for value in weights(tmp_path / "wild", step).values() if value.is_floating_point()]
        assert all(torch.isfinite(value).all() for value in floats)


def test_what_mlflow_missed_is_made_up_for(dataset, tmp_path):
    """As if killed between the last checkpoint and its record, with half a note on disk."""
    import mlflow

    recipe = write_recipe(tmp_path / "gap.yaml", dataset, steps=2, checkpoint={"every": 1, "keep": 9})
    result = hvc_json("train", str(recipe), cwd=tmp_path)
    journal, note = tmp_path / "gap" / "journal.jsonl", tmp_path / "gap" / "run.json"
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.update_run(result["run_id"], status="RUNNING")
    (tmp_path / "mlartifacts" / result["run_id"] / "artifacts/checkpoints/step-00000002.json").unlink()
    lines = journal.read_text().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if json.loads(line).get("record", {}).get("step") == 2)
    journal.write_text("".join(lines[:cut]) + lines[cut][:40])
    note.write_text('{"run_id": "ab')
    assert hvc_json("train", str(recipe), cwd=tmp_path)["run_id"] == result["run_id"]
    assert client.get_run(result["run_id"]).info.status == "FINISHED"
    names = {item.path for item in client.list_artifacts(result["run_id"], "checkpoints")}
    assert names == {"checkpoints/step-00000001.json", "checkpoints/step-00000002.json"}


def test_autocast_keeps_weights_in_fp32(dataset, tmp_path):
    recipe = write_recipe(
        tmp_path / "bf16.yaml",
        dataset,
        engine={"precision": "bf16", "zero_stage": 1},
        steps=2,
        batch_size=2,
    )
    hvc_json("train", str(recipe), cwd=tmp_path)
    tensors = weights(tmp_path / "bf16", 2)
    floats = [value for value in tensors.values() if value.is_floating_point()]
    assert all(value.dtype == torch.float32 for value in floats)
    assert all(torch.isfinite(value).all() for value in floats)
