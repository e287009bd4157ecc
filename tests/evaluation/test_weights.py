"""Trunks in and out by command, as evaluation uses them; trunks of others, with the user's word only."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import weights_files as files
from evaluation_video import make_video
from foreign_trunks import Patches, Plain
from running import hvc_json, run_hvc, write_recipe

from hvc.base.errors import HvcError
from hvc.evaluation.propagation.features import Encoder, untrained_trunk
from hvc.evaluation.trunks.weights import weights_of
from hvc.pretrain.model.trunk import Trunk, initialise
from hvc.pretrain.weights.encoder_file import metadata_of, read_encoder, write_encoder
from hvc.pretrain.weights.export import export
from hvc.pretrain.weights.official import read_weights

TESTS = Path(__file__).resolve().parents[1]


def picture(height=41, width=57):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def normalised(image):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.from_numpy((image / 255 - mean) / std).float().permute(2, 0, 1)[None]


def test_out_and_in_again_by_command(tmp_path):
    report = hvc_json("export", "baseline:untrained", "t.pth", "--seed", "3", cwd=tmp_path)
    assert (report["architecture"], report["tensors"], report["step"]) == ("resnet18", 120, 0)
    report = hvc_json("import", "t.pth", cwd=tmp_path)
    assert (report["file"], report["layers_up_to"]) == ("t.safetensors", "layer4")
    hvc_json("export", "t.safetensors", "again.pth", cwd=tmp_path)
    again, first = (torch.load(tmp_path / name) for name in ("again.pth", "t.pth"))
    assert list(again) == list(first)
    assert all(torch.equal(again[key], value) for key, value in first.items())
    state, _ = read_encoder(tmp_path / "t.safetensors")
    for key, value in untrained_trunk(3).state_dict().items():
        assert torch.equal(state[key], value)
    image = picture()
    assert torch.equal(
        Encoder.load(tmp_path / "t.safetensors").features(image), Encoder.untrained(3).features(image)
    )
    done = run_hvc("import", "t.pth", cwd=tmp_path)
    assert (done.returncode, "t.safetensors exists; --force replaces it" in done.stderr) == (2, True)
    assert run_hvc("import", "t.pth", "--force", cwd=tmp_path).returncode == 0


def test_commands_fail_in_words(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"nothing")
    for arguments, code, message in [
        (["import", "w.pth"], 1, "w.pth: "),
        (["import", "nowhere.pth"], 1, "no such file: nowhere.pth"),
        (["import", "w.pth", "o.pth"], 2, "write .safetensors"),
        (["export", "baseline:untrained", "o.bin"], 2, "write .safetensors or .pth"),
        (["export", "nowhere", "o.pth"], 1, "nowhere: no such checkpoint"),
    ]:
        done = run_hvc(*arguments, cwd=tmp_path)
        assert done.returncode == code, (arguments, done.stderr)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["{checkpoint}", "{checkpoint}/encoder.safetensors", "runs:/{run_id}"])
def test_a_checkpoint_of_a_run(trained, tmp_path, form):
    folder, result = trained
    reference, uri = form.format(**result), f"sqlite:///{folder}/mlflow.db"
    hvc_json("export", reference, "t.pth", "--tracking-uri", uri, cwd=tmp_path)
    state, metadata = read_encoder(Path(result["checkpoint"]) / "encoder.safetensors")
    found = read_weights(tmp_path / "t.pth")
    assert metadata.step == 6
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], value) for key, value in state.items())


def test_half_a_trunk_is_not_exported(tmp_path):
    state = {key: value for key, value in files.trunk_state().items() if key != "layer1.0.bn1.bias"}
    write_encoder(tmp_path / "half.safetensors", state, metadata_of("resnet18", 1))
    with pytest.raises(HvcError, match=r"half.safetensors is not .* missing, e.g. layer1.0.bn1.bias"):
        weights_of(str(tmp_path / "half.safetensors"))


def test_untrained_weights_are_those_of_a_trunk_that_ends_at_layer3():
    torch.manual_seed(11)
    front = Trunk(last="layer3")
    initialise(front)
    state, metadata = weights_of("baseline:untrained", seed=11)
    for key, value in front.state_dict().items():
        assert torch.equal(state[key], value)
    assert any(key.startswith("layer4") and value.std() > 0 for key, value in state.items())
    assert metadata == metadata_of("resnet18", 0)


def test_reflected_borders_are_obeyed(tmp_path):
    front = files.trunk_state(last="layer3")
    found = read_weights(files.crw(tmp_path / "pretrained.pth", front, pad_layers=True))
    export(found.state, found.metadata, tmp_path / "crw.safetensors")
    trunk = Trunk(last="layer3", padding="reflect").eval()
    trunk.load_state_dict(front)
    with torch.no_grad():
        expected = F.normalize(trunk(normalised(picture()))[0], dim=0)
    features = Encoder.load(tmp_path / "crw.safetensors").features(picture())
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)


def foreign(path, name, module):
    write_encoder(path, module.state_dict(), metadata_of(f"foreign_trunks:{name}", 4))
    return path


@pytest.mark.parametrize(("name", "made"), [("Patches", Patches), ("Plain", Plain)])
def test_a_trunk_of_ones_own_tracks_with_what_it_says(tmp_path, name, made):
    module = made().eval()
    path = foreign(tmp_path / "e.safetensors", name, module)
    with torch.no_grad():
        images = normalised(picture())
        raw = module.tracking_features(images) if name == "Patches" else module(images)
    features = Encoder.load(path, trust_architecture=True).features(picture())
    assert features.shape == ({"Patches": 12, "Plain": 5}[name], 6, 8)
    torch.testing.assert_close(features, F.normalize(raw[0], dim=0), rtol=1e-4, atol=1e-5)


def test_a_weights_file_alone_imports_nothing(tmp_path):
    (tmp_path / "marker.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    write_encoder(tmp_path / "e.safetensors", Plain().state_dict(), metadata_of("marker:Plain", 4))
    make_video().write(tmp_path / "clip")
    arguments = ["evaluate", "e.safetensors", "folder", "clip"]
    done = run_hvc(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "asks to import marker:Plain" in done.stderr
    assert "trust_architecture=true" in done.stderr
    for command in (
        ["export", "e.safetensors", "o.safetensors"],
        ["import", "e.safetensors", "p.safetensors"],
    ):
        run_hvc(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert not (tmp_path / "imported").exists()
    run_hvc(*arguments, "trust_architecture=true", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (tmp_path / "imported").exists()  # so it could have been


def test_a_trusted_trunk_is_evaluated(tmp_path):
    foreign(tmp_path / "e.safetensors", "Patches", Patches())
    make_video().write(tmp_path / "clip")
    arguments = ["e.safetensors", "folder", "clip", "trust_architecture=true", "protocol.context=2"]
    report = hvc_json("evaluate", *arguments, cwd=tmp_path, PYTHONPATH=str(TESTS))
    assert report["step"] == 4
    assert report["scores"]["jf_mean"] > 0


def test_a_trusted_trunk_of_another_shape_is_refused(tmp_path):
    state = Plain().state_dict() | {"conv.bias": torch.zeros(9)}
    write_encoder(tmp_path / "e.safetensors", state, metadata_of("foreign_trunks:Plain", 4))
    with pytest.raises(HvcError, match=r"not a complete foreign_trunks:Plain trunk: conv.bias has shape"):
        Encoder.load(tmp_path / "e.safetensors", trust_architecture=True)


_OFFICIAL = """
import argparse, sys
sys.path.insert(0, sys.argv[1])
import torch
from models.encoder import make_encoder
network, stride = make_encoder(argparse.Namespace(model_path=sys.argv[2]), "hvc")
images = torch.load(sys.argv[3])
with torch.no_grad():
    features = network.eval()(images[:, :, None])[:, :, 0]
torch.save({"state": network.model.state_dict(), "features": features, "stride": stride}, sys.argv[4])
"""


def test_the_official_code_loads_what_is_exported(tmp_path):
    official = os.environ.get("HVC_OFFICIAL")
    if not official:
        pytest.skip("HVC_OFFICIAL names no checkout of the official HVC code")
    trunk = files.trunk_state()
    export(trunk, metadata_of("resnet18", 9), tmp_path / "hvc.pth")
    torch.save(normalised(picture()), tmp_path / "images.pt")
    names = [str(tmp_path / name) for name in ("hvc.pth", "images.pt", "out.pt")]
    subprocess.run([sys.executable, "-c", _OFFICIAL, official, *names], check=True, cwd=tmp_path)
    theirs = torch.load(tmp_path / "out.pt")
    assert theirs["stride"] == (8, 8)
    ours = Trunk(last="layer3")
    ours.load_state_dict({key: value for key, value in trunk.items() if not key.startswith("layer4.")})
    with torch.no_grad():
        # Its loader learns the stride from a black image in training mode, which moves BatchNorm's buffers.
        ours.train()(torch.zeros(1, 3, 256, 256))
        features = ours.eval()(normalised(picture()))
    # It would keep random weights without a word, so everything is compared.
    assert theirs["state"].keys() == ours.state_dict().keys()
    for key, value in ours.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(theirs["state"][key], value, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(theirs["state"][key], value), key
    torch.testing.assert_close(theirs["features"], features, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_trunk_of_ones_own_is_trained_and_evaluated(dataset, tmp_path):
    recipe = write_recipe(tmp_path / "own.yaml", dataset, architecture="foreign_trunks:Patches", steps=2)
    report = hvc_json("train", str(recipe), cwd=tmp_path, PYTHONPATH=str(TESTS))
    path = Path(report["checkpoint"]) / "encoder.safetensors"
    state, metadata = read_encoder(path)
    assert (metadata.architecture, metadata.stride_1_layers) == ("foreign_trunks:Patches", ())
    assert state.keys() == Patches().state_dict().keys()
    make_video().write(tmp_path / "clip")
    arguments = [str(path), "folder", "clip", "trust_architecture=true", "protocol.context=2"]
    assert hvc_json("evaluate", *arguments, cwd=tmp_path, PYTHONPATH=str(TESTS))["scores"]["jf_mean"] > 0
