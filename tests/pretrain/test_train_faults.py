"""What training does when storage fails it: damaged checkpoints, buckets, full disks."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mutation import more_in_soak
from running import hvc_json, recorded_steps, run_hvc, start_hvc, write_recipe
from training_tensors import all_tensors, differing

from hvc.pretrain.checkpoints.checkpoint import complete_steps, newest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def interrupted_once(dataset, tmp_path_factory):
    """A folder whose run was killed after step 4 of 6, and a copy of it."""
    folder = tmp_path_factory.mktemp("interrupted") / "a"
    folder.mkdir()
    recipe = write_recipe(folder / "run.yaml", dataset, steps=6)
    child = start_hvc("train", str(recipe), cwd=folder, log=folder / "log")
    root = folder / "run" / "checkpoints"
    wait_for(lambda: 4 in complete_steps(root), child, folder / "log")
    child.kill()
    child.wait()
    if 6 in complete_steps(root):
        pytest.fail("it was finished before it could be killed")
    return folder, shutil.copytree(folder, folder.with_name("copy"))


@pytest.fixture
def interrupted(interrupted_once):
    """The recipe of that run and its folder of checkpoints, as the kill left them."""
    folder, copy = interrupted_once
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    return folder / "run.yaml", folder / "run" / "checkpoints"


def wait_for(condition, child: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


@pytest.mark.parametrize("damage", more_in_soak(["altered", "marker"], ["truncated", "missing"]))
def test_a_damaged_checkpoint_is_passed_over(interrupted, trained_alone, damage):
    recipe, root = interrupted
    file = root / "step-00000004" / ("COMPLETE" if damage == "marker" else "optimizer.safetensors")
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        if damage == "altered":
            content[len(content) // 2] ^= 1
        file.write_bytes(content if damage == "altered" else content[:-100])
    done = run_hvc("train", str(recipe), "--json", cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    assert str(file) in done.stderr
    assert "resuming at step 2 of 6" in done.stderr
    found = newest(root)
    assert found is not None
    assert differing(all_tensors(found), trained_alone) == []
    assert recorded_steps(root.parent) == [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def trained_alone(dataset, tmp_path_factory):
    """Tensors of the same run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("alone")
    result = hvc_json("train", str(write_recipe(folder / "run.yaml", dataset)), cwd=folder)
    found = newest(Path(result["checkpoint"]).parent)
    assert found is not None
    return all_tensors(found)


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew_in_its_record(interrupted):
    recipe, root = interrupted
    for file in root.glob("step-*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    journal = root.parent / "journal.jsonl"
    before = journal.read_bytes()
    done = run_hvc("train", str(recipe), "learning_rate=0.01", cwd=recipe.parent)
    assert done.returncode == 1
    assert f"none in {root} can be used" in done.stderr
    assert "another output=" in done.stderr
    assert journal.read_bytes() == before


def test_another_code_goes_on_and_says_so(interrupted):
    recipe, _ = interrupted
    journal = recipe.parent / "run" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "attempt":
            line["code"] = "0" * 64
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run_hvc("train", str(recipe), "--json", cwd=recipe.parent)
    assert done.returncode == 0, done.stderr
    assert "the code has changed since the last attempt" in done.stderr


def test_other_data_is_refused(interrupted, dataset, tmp_path):
    recipe, root = interrupted
    other = tmp_path / "other"
    Path(other).mkdir()
    from running import make_images

    make_images(other / "images", 12, seed=5)
    hvc_json("shard", "folder", "images", "dataset", cwd=other)
    done = run_hvc("train", str(recipe), f"data={other / 'dataset'}", cwd=recipe.parent)
    assert done.returncode == 2
    assert "was trained on dataset" in done.stderr
    assert complete_steps(root) == [2, 4]


@pytest.mark.services
def test_checkpoints_in_a_bucket_outlive_the_machine(dataset, tmp_path, s3_env, trained_alone):
    """Killed, and gone on elsewhere: nothing is left but the bucket and the tracking database."""
    address = s3_env.bucket("outlive") + "/checkpoints"
    database = f"sqlite:///{tmp_path}/mlflow.db"
    options = {"checkpoint": {"every": 2, "keep": 2, "address": address}, "tracking": {"uri": database}}
    (tmp_path / "a").mkdir()
    recipe = write_recipe(tmp_path / "a" / "run.yaml", dataset, **options)
    child = start_hvc("train", str(recipe), cwd=tmp_path, log=tmp_path / "log")
    wait_for(lambda: 4 in complete_steps(address), child, tmp_path / "log")
    child.kill()
    child.wait()
    (tmp_path / "b").mkdir()
    recipe = write_recipe(tmp_path / "b" / "run.yaml", dataset, **options)
    result = hvc_json("train", str(recipe), cwd=tmp_path)
    assert result["checkpoint"] == f"{address}/step-00000006"
    # Of a server that does not answer in seconds it is not known which step has an alias: all stay then.
    assert complete_steps(address)[-2:] == [4, 6]
    found = newest(address)
    assert found is not None
    assert differing(all_tensors(found), trained_alone) == []
    import mlflow

    client = mlflow.MlflowClient(database)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    # What the lost folder had not sent yet is lost with it; nothing is there twice.
    assert len(set(steps)) == len(steps)
    assert set(steps) >= {5, 6}
    score = run_hvc("export", result["checkpoint"], "trunk.safetensors", cwd=tmp_path)
    assert score.returncode == 0, score.stderr


@pytest.mark.services
def test_slow_storage_is_no_standing_still(dataset, tmp_path, s3_env, faulty_s3):
    """A checkpoint takes several times `watchdog_seconds` to write; both ranks wait for it."""
    place = {"every": 1, "address": s3_env.bucket("slow") + "/checkpoints"}
    recipe = write_recipe(tmp_path / "slow.yaml", dataset, steps=1, watchdog_seconds=6, checkpoint=place)
    faulty_s3(1.0, kinds=("delay",)).delay = 1.5
    done = run_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no step was finished" not in done.stderr
    assert complete_steps(place["address"]) == [1]


@pytest.mark.services
def test_a_kill_during_an_upload_leaves_no_files(dataset, tmp_path, s3_env, faulty_s3):
    place = {"every": 1, "address": s3_env.bucket("left") + "/checkpoints"}
    recipe = write_recipe(tmp_path / "left.yaml", dataset, steps=2, checkpoint=place)
    folder, temporary = tmp_path / "left", tmp_path / "tmp"
    temporary.mkdir()
    proxy = faulty_s3(1.0, kinds=("delay",))
    proxy.delay = 0.5
    child = start_hvc("train", str(recipe), cwd=tmp_path, log=tmp_path / "log", TMPDIR=str(temporary))
    wait_for(lambda: list(folder.glob(".hvc-checkpoint-*/.*")), child, tmp_path / "log")
    child.kill()
    child.wait()
    assert not list(temporary.glob("*checkpoint*"))
    assert list(folder.glob(".hvc-checkpoint-*"))
    proxy.share = 0.0
    done = run_hvc("train", str(recipe), cwd=tmp_path, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob(".hvc-checkpoint-*"))


@pytest.mark.services
def test_a_bucket_that_refuses_ends_the_run_before_it_begins(dataset, tmp_path, s3_env):
    place = {"every": 2, "address": s3_env.bucket("refused") + "/checkpoints"}
    recipe = write_recipe(tmp_path / "refused.yaml", dataset, checkpoint=place)
    done = run_hvc("train", str(recipe), cwd=tmp_path, AWS_SECRET_ACCESS_KEY="wrong")
    assert done.returncode == 1
    assert "access denied" in done.stderr
    assert "wrong" not in done.stderr.replace("wrong.", "")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_keeps_the_last_good_checkpoint(dataset, tmp_path):
    """A disk with room for one checkpoint (190 MB) and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        place = {"every": 1, "keep": 1, "address": str(disk / "checkpoints"), "max_failures": 2}
        recipe = write_recipe(tmp_path / "full.yaml", dataset, checkpoint=place, steps=9)
        done = run_hvc("train", str(recipe), cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert "No space left on device" in done.stderr
        assert "2 checkpoints in a row could not be written" in done.stderr
        assert f"the last good one is {disk}/checkpoints/step-00000001" in done.stderr
        assert "Traceback" not in done.stderr
        found = newest(disk / "checkpoints")
        assert found is not None
        assert found.step == 1
        assert all_tensors(found)
        bigger = ["mount", "-o", "remount,size=900m", str(disk)]
        subprocess.run(bigger, check=True)
        again = hvc_json("train", str(recipe), cwd=tmp_path)
        assert again["step"] == 9
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_stop_request_is_saved_within_its_grace(dataset, tmp_path):
    recipe = write_recipe(tmp_path / "stop.yaml", dataset, steps=4000, checkpoint={"every": 4000})
    child = start_hvc("train", str(recipe), "--processes", "2", cwd=tmp_path, log=tmp_path / "log")
    folder = tmp_path / "stop"
    wait_for(
        lambda: (folder / "journal.jsonl").exists() and recorded_steps(folder), child, tmp_path / "log"
    )
    begin = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 75, (tmp_path / "log").read_text()
    assert time.monotonic() - begin < 30
    (step,) = complete_steps(folder / "checkpoints")
    assert recorded_steps(folder)[-1] == step
