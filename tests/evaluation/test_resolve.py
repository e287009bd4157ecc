"""A trunk by any of its names, in folders and in buckets: the right one, unaltered, or a clear error."""

import mlflow
import pytest
from checkpoint_data import snapshot, write, write_version_1
from evaluation_video import make_video
from running import hvc_json, run_hvc
from weights_files import moco, trunk_state

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import open_store, sha256_file
from hvc.evaluation.trunks.method import Method
from hvc.evaluation.trunks.resolve import pinned, resolve, warning_before_waiting
from hvc.pretrain.weights.encoder_file import read_encoder

UNUSED = "sqlite:///nowhere.db"
ENCODER, MODEL = "encoder.safetensors", "model.safetensors"


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.services)])
def address(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "c")
    return request.getfixturevalue("s3_env").bucket("trunks") + "/run/c"


@pytest.fixture
def recorded(address, tmp_path):
    """Two checkpoints, and a run that knows them: address, tracking URI, run id."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("resolve", artifact_location=(tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.create_registered_model("trunk")
    for step in (10, 20):
        done = write(address, step, run_id=run_id)
        record = {"version": 1, "step": step, "address": done.address, "sha256": done.sha256}
        client.log_dict(run_id, record, f"checkpoints/step-{step:08d}.json")
        tags = {f"hvc.{key}": str(record[key]) for key in ("address", "sha256", "step")}
        client.create_model_version("trunk", f"runs:/{run_id}/checkpoints", run_id, tags=tags)
        client.set_registered_model_alias("trunk", "newest", str(step // 10))
    return address, uri, run_id


def assert_trunk(trunk, step, run_id):
    assert (trunk.step, trunk.run_id) == (step, run_id)
    state, metadata = read_encoder(trunk.encoder)
    assert metadata.step == step
    assert (state["conv1.weight"] == snapshot(step).encoder["conv1.weight"]).all()


def test_every_name_leads_to_the_trunk(recorded):
    address, uri, run_id = recorded
    for reference, step in [
        (f"runs:/{run_id}", 20),
        (f"runs:/{run_id}@10", 10),
        ("models:/trunk@newest", 20),
        ("models:/trunk@latest", 20),
        ("models:/trunk/1", 10),
        (f"{address}/step-00000010", 10),
        (f"{address}/step-00000020/", 20),
    ]:
        assert_trunk(resolve(reference, uri), step, run_id)
    bare = resolve(f"{address}/step-00000010/{ENCODER}", uri)
    assert_trunk(bare, 10, None)
    assert bare.sha256 == resolve(f"runs:/{run_id}@10", uri).sha256


def test_a_name_that_moves_on_can_be_pinned(recorded):
    address, uri, run_id = recorded
    for reference, name in [
        (f"runs:/{run_id}", f"runs:/{run_id}@20"),
        (f"runs:/{run_id[:8]}", f"runs:/{run_id}@20"),
        (f"runs:/{run_id}@10", f"runs:/{run_id}@10"),
        ("models:/trunk@newest", "models:/trunk/2"),
        (f"{address}/step-00000010", f"{address}/step-00000010"),
        ("baseline:pixels", "baseline:pixels"),
    ]:
        assert pinned(reference, uri) == name
    assert_trunk(resolve(f"runs:/{run_id[:8]}@10", uri), 10, run_id)


def test_baselines_have_names():
    kinds = [resolve(f"baseline:{name}", UNUSED).kind for name in ("untrained", "pixels", "first-mask")]
    assert kinds == ["untrained", "pixels", "first-mask"]
    with pytest.raises(UsageError, match=r"the baselines are .*baseline:first-mask"):
        resolve("baseline:random", UNUSED)


def test_weights_as_others_publish_them_are_taken_as_imported(tmp_path):
    theirs = moco(tmp_path / "moco_v1.pth.tar", trunk_state("resnet50"))
    trunk = resolve(str(theirs), UNUSED)
    assert (trunk.run_id, trunk.kind) == (None, "file")
    state, metadata = read_encoder(trunk.encoder)
    assert metadata.architecture == "resnet50"
    assert (state["conv1.weight"] == trunk_state("resnet50")["conv1.weight"]).all()
    assert trunk.sha256 == sha256_file(theirs)
    temporary = trunk.encoder
    del trunk
    assert not temporary.exists()
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(HvcError, match=r"other\.pth"):
        resolve(str(tmp_path / "other.pth"), UNUSED)


def test_of_a_run_the_newest_that_is_still_there(recorded):
    address, uri, run_id = recorded
    store = open_store(address)
    store.delete("step-00000020/COMPLETE")
    assert_trunk(resolve(f"runs:/{run_id}", uri), 10, run_id)
    store.delete("step-00000010/COMPLETE")
    with pytest.raises(HvcError, match="none of its checkpoints is within reach"):
        resolve(f"runs:/{run_id}", uri)
    with pytest.raises(HvcError, match="not a complete checkpoint"):
        resolve(f"runs:/{run_id}@10", uri)


@pytest.mark.parametrize("left", [[], ["encoder.safetensors"]])
def test_one_that_training_removed_is_not_waited_for(recorded, left):
    address, uri, run_id = recorded
    store = open_store(address)
    for name in list(store.names("step-00000010/")):
        if name.rpartition("/")[2] not in left:
            store.delete(name)
    words = r"removed.*`checkpoint\.keep`.* newer one, e\.g\. step 20.*alias"
    for reference in (f"runs:/{run_id}@10", "models:/trunk/1", f"{address}/step-00000010"):
        with pytest.raises(UsageError, match=words):
            resolve(reference, uri)
    store.delete("step-00000020/COMPLETE")  # now it may be the place that is not within reach
    for reference in (f"runs:/{run_id}@10", f"{address}/step-00000010"):
        with pytest.raises(HvcError, match=r"no such checkpoint|not a complete checkpoint") as caught:
            resolve(reference, uri)
        assert not isinstance(caught.value, UsageError)


def test_what_a_run_that_goes_on_will_remove_is_said_before(recorded):
    _, uri, run_id = recorded
    client = mlflow.MlflowClient(uri)
    names = [f"runs:/{run_id}@20", "models:/trunk/2"]
    assert [warning_before_waiting(name, uri) for name in names] == [None, None], "it says nothing of keep"
    client.log_param(run_id, "checkpoint.keep", "3")
    for status in ("RUNNING", "SCHEDULED"):
        client.update_run(run_id, status=status)
        for name in names:
            words = warning_before_waiting(name, uri)
            assert f"run {run_id} still trains and keeps 3 checkpoints: step 20 is removed once 3" in words
    client.log_param(run_id, "checkpoint.keep_every", "20")
    assert warning_before_waiting(names[0], uri) is None
    assert "step 10" in warning_before_waiting(f"runs:/{run_id}@10", uri)
    client.set_terminated(run_id, "FINISHED")
    assert warning_before_waiting(f"runs:/{run_id}@10", uri) is None
    for name in ("baseline:pixels", "some/folder"):
        assert warning_before_waiting(name, uri) is None


def test_submitting_warns_of_it(recorded, tmp_path):
    _, uri, run_id = recorded
    client = mlflow.MlflowClient(uri)
    client.log_param(run_id, "checkpoint.keep", "3")
    (tmp_path / "cluster.yaml").write_text("name: c\npartition: batch\n")
    command = ("submit", "evaluate", "models:/trunk@newest", "folder", "clips", "--tracking-uri", uri)
    options = ("--parts", "2", "--cluster", "cluster.yaml")
    done = run_hvc(*command, *options, cwd=tmp_path, PATH="/usr/bin:/bin")  # where no Slurm is
    assert f"warning: models:/trunk/2: run {run_id} still trains and keeps 3 checkpoints" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_evaluation_uses_is_checked_and_the_rest_is_not_read(recorded):
    address, uri, run_id = recorded
    store = open_store(address)
    store.delete(f"step-00000020/{MODEL}")
    assert_trunk(resolve(f"runs:/{run_id}", uri), 20, run_id)
    encoder = f"step-00000020/{ENCODER}"
    data = bytearray(store.read(encoder))
    data[-1] ^= 1
    store.write(encoder, bytes(data))
    for reference in (f"runs:/{run_id}", "models:/trunk@newest", f"{address}/step-00000020"):
        with pytest.raises(HvcError, match=rf"{ENCODER}: altered since it was written"):
            resolve(reference, uri)


def test_another_checkpoint_in_the_same_place_is_noticed(recorded):
    address, uri, run_id = recorded
    write(address, 20, run_id="another")
    with pytest.raises(HvcError, match=f"not the checkpoint that run {run_id} recorded"):
        resolve(f"runs:/{run_id}", uri)


def test_wrong_places(address):
    write(address, 10)
    for reference, words in [
        (f"{address}/step-00000030", "no such checkpoint|not a complete checkpoint"),
        (f"{address}/step-00000010/other.safetensors", "no such checkpoint"),
        (address, f"{address} holds several checkpoints; name one of them, e.g. {address}/step-00000010"),
    ]:
        with pytest.raises(HvcError, match=words):
            resolve(reference, UNUSED)


@pytest.mark.services
def test_a_prefix_of_several_is_explained(s3_env):
    address = s3_env.bucket("several") + "/c"
    for step in (10, 20):
        write(address, step)
    with pytest.raises(
        UsageError, match=r"several checkpoints; name one .* s3://several.*/c/step-00000020"
    ):
        resolve(address, UNUSED)


@pytest.mark.services
def test_the_copy_of_a_bucket_goes_with_the_trunk(s3_env):
    address = s3_env.bucket("held") + "/c"
    write(address, 10)
    for reference in (f"{address}/step-00000010", f"{address}/step-00000010/{ENCODER}"):
        trunk = resolve(reference, UNUSED)
        path = trunk.encoder
        assert path.exists()
        sent = Method(trunk).to_send().first.encoder
        assert sha256_file(sent) == trunk.sha256
        assert not str(sent).startswith("/proc/self"), "it is of use to other processes"
        del trunk
        assert not path.exists() or "(deleted)" not in str(path.readlink()), "another file has its number"


def test_version_1_still_leads_to_its_trunk(tmp_path):
    folder = write_version_1(tmp_path, 30)
    assert_trunk(resolve(str(folder), UNUSED), 30, None)


@pytest.mark.slow
@pytest.mark.services
def test_a_run_in_a_bucket_is_evaluated(trained, s3_env, tmp_path):
    _, result = trained
    address = s3_env.bucket("evaluated") + "/c/step-00000006"
    store, local = open_store(address), open_store(result["checkpoint"])
    for name in local.names():
        store.write(name, local.read(name))
    make_video(ids=(1, 2)).write(tmp_path / "blocks")
    options = ["folder", "blocks", "protocol.input_size=48"]
    make_video(ids=(1,)).write(tmp_path / "pair" / "one")
    make_video(ids=(1, 2)).write(tmp_path / "pair" / "two")
    pair = ("folder", "pair", *options[2:], "workers=2")
    assert hvc_json("evaluate", address, *pair, cwd=tmp_path, **s3_env.env)["sequences"] == 2
    there = hvc_json("evaluate", address, *options, cwd=tmp_path, **s3_env.env)
    here = hvc_json("evaluate", result["checkpoint"], *options, cwd=tmp_path)
    assert there["weights_sha256"] == here["weights_sha256"]
    assert there["scores"] == here["scores"]
    store.delete("COMPLETE")
    done = run_hvc("evaluate", address, *options, cwd=tmp_path, **s3_env.env)
    assert done.returncode == 1
    assert "not a complete checkpoint" in done.stderr
