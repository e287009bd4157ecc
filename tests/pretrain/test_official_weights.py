"""Other people's files: read by name, nothing passed over, no code run."""

import collections
import os
import random
import struct
import zipfile

import pytest
import torch
import weights_files as files
from safetensors.torch import save_file

from hvc.base.errors import HvcError
from hvc.base.storage import sha256_file
from hvc.pretrain.model.architecture import LAYERS
from hvc.pretrain.weights import torch_file
from hvc.pretrain.weights.encoder_file import metadata_of, write_encoder
from hvc.pretrain.weights.official import read_weights


@pytest.fixture(scope="module")
def trunk():
    return files.trunk_state()


@pytest.fixture(scope="module")
def front():
    return files.trunk_state(last="layer3")


def assert_equal(first, second):
    assert list(first) == list(second)
    for key, value in first.items():
        assert value.dtype == second[key].dtype, key
        assert torch.equal(value, second[key]), key


def test_official_training_checkpoint(tmp_path, trunk):
    path = files.hvc_training(tmp_path / "hvc.pth", trunk, steps=3)
    found = read_weights(path)
    assert_equal(found.state, trunk)
    assert found.metadata.step == 3
    assert found.metadata.source_kind == "hvc-training"
    assert found.metadata.source_sha256 == sha256_file(path)
    counts = {"EMA target": 136, "projector": 16, "predictor": 16, "dynamic head": 14}
    assert {key: value for key, value in found.dropped.items() if value} == counts
    assert sum(counts.values()) + len(trunk) == 302  # all that an official file holds
    assert {key for key, value in found.dropped.items() if not value} == {"optimizer", "epoch", "args"}


def test_official_converted_file(tmp_path, trunk):
    found = read_weights(files.save(tmp_path / "hvc_coco.pth", collections.OrderedDict(trunk)))
    assert_equal(found.state, trunk)
    assert (found.metadata.architecture, found.metadata.stride_1_layers) == ("resnet18", LAYERS[2:])
    assert found.metadata.mean == (0.485, 0.456, 0.406)
    assert (found.metadata.padding, found.dropped, found.added) == ("zeros", {}, 0)


def test_moco(tmp_path):
    trunk = files.trunk_state("resnet50")
    found = read_weights(files.moco(tmp_path / "moco.pth.tar", trunk))
    assert_equal(found.state, trunk)
    assert (found.metadata.architecture, found.metadata.source_kind) == ("resnet50", "moco")
    assert found.dropped["classifier"] == 2
    assert found.dropped["key encoder"] == len(trunk) + 2
    assert found.dropped["queue"] == 2


@pytest.mark.parametrize(
    ("pad_layers", "model_type", "padding"),
    [
        (True, None, "reflect"),
        (False, None, "reflect"),
        (False, "scratch", "reflect"),
        (False, "scratch_zeropad", "zeros"),
    ],
)
def test_crw(tmp_path, front, pad_layers, model_type, padding):
    found = read_weights(files.crw(tmp_path / "pretrained.pth", front, pad_layers, model_type))
    assert_equal(found.state, front)
    assert (found.metadata.source_kind, found.metadata.padding) == ("crw", padding)
    assert found.report()["layers_up_to"] == "layer3"
    assert found.dropped["head"] == 2


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "resnet50"])
def test_torchvision(tmp_path, architecture):
    trunk = files.trunk_state(architecture)
    found = read_weights(files.torchvision(tmp_path / "r.pth", trunk))
    counters = [key for key in trunk if key.endswith("num_batches_tracked")]
    assert_equal(found.state, trunk | {key: torch.tensor(0) for key in counters})
    assert (found.metadata.architecture, found.added) == (architecture, len(counters))
    assert found.dropped == {"classifier": 2}


def test_an_imagenet_training_checkpoint_of_data_parallel(tmp_path, trunk):
    state = {f"module.{key}": value for key, value in trunk.items()}
    found = read_weights(files.save(tmp_path / "c.pth.tar", {"state_dict": state, "epoch": 4}))
    assert_equal(found.state, trunk)


def test_our_own_file_keeps_what_it_says(tmp_path, trunk):
    metadata = metadata_of("resnet18", 41, "digest").model_copy(update={"padding": "reflect"})
    write_encoder(tmp_path / "encoder.safetensors", trunk, metadata)
    found = read_weights(tmp_path / "encoder.safetensors")
    assert_equal(found.state, trunk)
    source = {"source_kind": "encoder", "source_sha256": sha256_file(tmp_path / "encoder.safetensors")}
    assert found.metadata == metadata.model_copy(update=source)


def test_any_safetensors_with_such_names(tmp_path, trunk):
    save_file({f"online_encoder.{key}": value for key, value in trunk.items()}, tmp_path / "a.safetensors")
    found = read_weights(tmp_path / "a.safetensors")
    assert_equal(found.state, trunk)
    assert found.metadata.source_kind == "hvc-training"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, trunk, dtype):
    stored = {key: value.to(dtype) if value.is_floating_point() else value for key, value in trunk.items()}
    found = read_weights(files.save(tmp_path / "h.pth", stored))
    expected = {key: value.to(trunk[key].dtype) for key, value in stored.items()}
    assert_equal(found.state, expected)


def gone(state):
    del state["layer2.1.bn1.running_var"]
    del state["layer4.0.conv1.weight"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (gone, "2 tensors are missing, e.g. layer2.1.bn1.running_var, layer4.0.conv1.weight"),
        (
            lambda s: s.update({"layer3.0.conv9.weight": torch.zeros(3)}),
            "1 tensors of something else, e.g. layer3.0.conv9.weight",
        ),
        (lambda s: s.update({"decoder.weight": torch.zeros(3)}), "something else, e.g. decoder.weight"),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), r"bn1.bias has shape \[3\], expected \[64\]"),
        (lambda s: s.update({"bn1.bias": torch.full((64,), torch.nan)}), "bn1.bias holds NaN"),
        (lambda s: s.update({"bn1.bias": torch.zeros(64).long()}), "bn1.bias is of type torch.int64"),
        (lambda s: s.update({"bn1.bias": torch.zeros(64).to_sparse()}), "bn1.bias is of type"),
        (lambda s: s.update({"bn1.bias": torch.zeros(1).expand(2**50)}), r"bn1.bias has shape \[11258999"),
        (lambda s: [s.pop(key) for key in list(s) if key.startswith("layer2.")], "no ResNet in it"),
        (lambda s: [s.pop(key) for key in list(s) if key.startswith("layer2.1")], r"\(2, 1, 2, 2\) basic"),
        (lambda s: s.update({"epoch": 3}), "no state dict in it"),
        (lambda s: s.clear(), "found nothing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, trunk, spoil, message):
    state = dict(trunk)
    spoil(state)
    with pytest.raises(HvcError, match=message) as caught:
        read_weights(files.save(tmp_path / "w.pth", state))
    assert "w.pth" in str(caught.value)


def test_a_tensor_beside_the_known_heads_is_an_error(tmp_path, trunk):
    state = {f"online_encoder.{key}": value for key, value in trunk.items()} | {"extra.w": torch.zeros(1)}
    with pytest.raises(HvcError, match=r"hvc-training weights, but 1 tensors .* extra\.w"):
        read_weights(files.save(tmp_path / "w.pth", {"model": state}))


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("value", [Evil(), collections.Counter("a"), zipfile.ZipInfo("a")])
def test_a_file_that_names_code_is_refused_and_not_run(tmp_path, monkeypatch, trunk, zipped, value):
    monkeypatch.chdir(tmp_path)
    content = {"model": dict(trunk), "args": value}
    path = files.save(tmp_path / "evil.pth", content, _use_new_zipfile_serialization=zipped)
    if isinstance(value, collections.Counter):  # PyTorch lets this one in, it is a plain count
        assert read_weights(path).dropped == {"args": 0}
        return
    with pytest.raises(HvcError, match=r"evil.pth asks for (posix.system|zipfile.ZipInfo) .* refused"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"x", b"not weights at all", b"PK\x03\x04 torn", struct.pack("<Q", 5) + b"{x", b"\x80\x02}q\x00."],
)
def test_other_files_are_refused_in_words(tmp_path, content):
    (tmp_path / "f.pth").write_bytes(content)
    with pytest.raises(HvcError, match=r"f\.pth"):
        read_weights(tmp_path / "f.pth")


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_truncated_files_are_refused_in_words(tmp_path, front, kind, share):
    path = tmp_path / "f"
    if kind == "safetensors":
        save_file(front, path)
    else:
        files.save(path, front, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(HvcError, match=str(path)):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_damaged_bytes_end_in_words(tmp_path, kind):
    """A seeded walk through single and few altered bytes; anything but HvcError is a defect."""
    tensors = {"online_encoder.conv1.weight": torch.zeros(2, 2), "online_encoder.bn1.bias": torch.zeros(3)}
    path, draw = tmp_path / "f", random.Random(kind)
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        files.save(path, {"model": tensors, "epoch": 3}, _use_new_zipfile_serialization=kind == "zip")
    sound = path.read_bytes()
    for _ in range(500):
        damaged = bytearray(sound)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(sound))] = draw.randrange(256)
        path.write_bytes(damaged)
        with pytest.raises(HvcError):
            read_weights(path)


def test_sizes_are_looked_at_first(tmp_path, monkeypatch, trunk):
    (tmp_path / "empty").touch()
    with pytest.raises(HvcError, match="is empty"):
        read_weights(tmp_path / "empty")
    path = files.save(tmp_path / "w.pth", trunk)
    monkeypatch.setattr(torch_file, "LARGEST", 2**20)
    with pytest.raises(HvcError, match="more than any checkpoint"):
        read_weights(path)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**21))
    assert (tmp_path / "bomb.pth").stat().st_size < 2**14
    with pytest.raises(HvcError, match="more than any checkpoint"):
        read_weights(tmp_path / "bomb.pth")


@pytest.mark.parametrize("name", ["nowhere.pth", ""])
def test_a_path_that_is_no_file(tmp_path, name):
    with pytest.raises(HvcError, match=r"no such file|cannot read"):
        read_weights(tmp_path / name)
