"""Bad input as a user meets it: a message that says what, where and what next; nothing half-written."""

import json
import socket

import pytest
from PIL import Image
from running import clean_env, hvc_json, make_images, run_hvc, write_recipe

from hvc.pretrain.training.processes import free_port


def test_a_corrupt_jpeg_is_rejected_by_name_and_counted(tmp_path):
    images = make_images(tmp_path / "images", 6)
    broken = images / "0003.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    done = run_hvc("shard", "folder", "images", "strict", "--max-bad", "0", cwd=tmp_path)
    assert done.returncode == 1
    assert "0003.jpg" in done.stderr
    assert not (tmp_path / "strict" / "manifest.json").exists()

    report = hvc_json("shard", "folder", "images", "lenient", "--max-bad", "1", cwd=tmp_path)
    assert (report["found"], report["samples"], report["rejected"]) == (6, 5, 1)
    (reject,) = (tmp_path / "lenient" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["path"] == "0003.jpg"
    assert hvc_json("verify", "lenient", cwd=tmp_path)["samples"] == 5


def test_a_missing_folder(tmp_path):
    done = run_hvc("shard", "folder", "nowhere", "dataset", cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_no_dataset(tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", str(tmp_path / "nothing"))
    done = run_hvc("train", str(recipe), cwd=tmp_path)
    assert done.returncode == 2
    assert "manifest.json" in done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 0.1", "did you mean 'learning_rate'"),
        ("views: {sise: 96}", "did you mean 'size'"),
        ("batch_size: many", "batch_size"),
        ("a: [", "not valid YAML"),
        ("- a\n- b", "expected `key: value`"),
        ("views: {size: 97}", "multiple of 8"),
    ],
)
def test_a_wrong_recipe(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(f"data: x\n{text}\n" if not text.startswith("-") else text)
    done = run_hvc("train", "r.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "r.yaml" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]


def test_a_wrong_override_and_a_missing_recipe(tmp_path, dataset):
    recipe = write_recipe(tmp_path / "r.yaml", dataset)
    done = run_hvc("train", str(recipe), "views.siz=64", cwd=tmp_path)
    assert (done.returncode, "did you mean 'size'" in done.stderr) == (2, True)
    done = run_hvc("train", str(recipe), "oops", cwd=tmp_path)
    assert (done.returncode, "key=value" in done.stderr) == (2, True)
    done = run_hvc("train", "none.yaml", cwd=tmp_path)
    assert (done.returncode, "no such file: none.yaml" in done.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_dead_mlflow_server(tmp_path, dataset, processes):
    uri = f"http://127.0.0.1:{free_port()}"
    recipe = write_recipe(tmp_path / "r.yaml", dataset, tracking={"uri": uri})
    done = run_hvc("train", str(recipe), "--processes", processes, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"MLflow at {uri} does not take records now" in done.stderr
    assert f"`hvc sync {tmp_path / 'r'}` sends them" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "r" / "checkpoints" / "step-00000006" / "COMPLETE").exists()


@pytest.mark.slow
def test_an_unknown_run_step_and_alias(tmp_path):
    make_clip_folder(tmp_path / "clip")
    for reference, words in {
        "runs:/0123456789abcdef0123456789abcdef": "no run 0123456789abcdef",
        "models:/hvc@best": "models:/hvc@best is not at",
    }.items():
        done = run_hvc("evaluate", reference, "folder", "clip", cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert words in done.stderr
        assert not (tmp_path / "outputs" / "eval").exists()


def test_a_wrong_checkpoint(tmp_path):
    make_clip_folder(tmp_path / "clip")
    (tmp_path / "x.safetensors").write_bytes(b"not tensors at all")
    (tmp_path / "empty").mkdir()
    for reference, code, words in [
        ("runs:/", 2, "write runs:/ID"),
        ("baseline:magic", 2, "baseline:untrained"),
        ("x.safetensors", 1, "not a readable safetensors file"),
        ("empty", 1, "not a complete checkpoint"),
        ("nowhere.safetensors", 1, "no such checkpoint"),
    ]:
        done = run_hvc("evaluate", reference, "folder", "clip", cwd=tmp_path)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    done = run_hvc("evaluate", "baseline:untrained", "davis2016", "clip", cwd=tmp_path)
    assert (done.returncode, "not a DAVIS folder" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.services
def test_a_wrong_s3_key(tmp_path, s3):
    images = make_images(tmp_path / "images", 3)
    target = s3.bucket("wrong-key") + "/set"
    wrong = s3.env | {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    done = run_hvc("shard", "folder", str(images), target, cwd=tmp_path, **wrong)
    assert done.returncode == 1
    assert "access denied" in done.stderr
    assert "AWS_SECRET_ACCESS_KEY" in done.stderr
    assert "not-the-secret" not in done.stderr + done.stdout
    listed = s3.client().list_objects_v2(Bucket="wrong-key")
    assert listed["KeyCount"] == 0

    recipe = write_recipe(tmp_path / "r.yaml", "s3://wrong-key/nothing-here")
    done = run_hvc("train", str(recipe), cwd=tmp_path, **s3.env)
    assert done.returncode == 1
    assert "s3://wrong-key/nothing-here" in done.stderr
    assert not (tmp_path / "r").exists()


def test_a_dead_s3_server(tmp_path):
    images = make_images(tmp_path / "images", 3)
    dead = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    done = run_hvc("shard", "folder", str(images), "s3://bucket/set", cwd=tmp_path, **dead)
    assert done.returncode == 1
    assert "AWS_ENDPOINT_URL_S3" in done.stderr


def test_no_s3_credentials(tmp_path):
    images = make_images(tmp_path / "images", 1)
    with socket.socket() as listener:  # never asked: credentials come first
        listener.bind(("127.0.0.1", 0))
        env = {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        assert not {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & clean_env().keys()
        done = run_hvc("shard", "folder", str(images), "s3://bucket/set", cwd=tmp_path, **env)
    assert done.returncode == 1
    assert "no credentials" in done.stderr


def make_clip_folder(folder):
    (folder / "frames").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48), (number * 40, 90, 120)).save(folder / "frames" / f"{number:05d}.jpg")
        mask = Image.new("L", (64, 48), 0)
        mask.paste(1, (8, 8, 30, 30))
        mask.save(folder / "masks" / f"{number:05d}.png")
