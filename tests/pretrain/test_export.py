"""A trunk out, and the same back in."""

import pytest
import torch
import weights_files as files
from hypothesis import given
from hypothesis import strategies as st

from hvc.base.errors import HvcError, UsageError
from hvc.base.storage import sha256_file
from hvc.pretrain.weights.encoder_file import metadata_of, read_encoder
from hvc.pretrain.weights.export import export, import_destination
from hvc.pretrain.weights.official import read_weights


@pytest.mark.parametrize("architecture", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_what_is_exported_is_imported_bit_for_bit(tmp_path, architecture, ending):
    trunk = files.trunk_state(architecture)
    metadata = metadata_of(architecture, 41, "digest")
    path = tmp_path / "new" / f"t{ending}"
    report = export(trunk, metadata, path)
    found = read_weights(path)
    assert list(found.state) == list(trunk)
    assert all(torch.equal(found.state[key], value) for key, value in trunk.items())
    assert report["sha256"] == found.metadata.source_sha256 == sha256_file(path)
    step = 41 if ending == ".safetensors" else 0  # the official layout has no place for it
    assert (found.metadata.step, found.metadata.architecture) == (step, architecture)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_ours_is_read_by_evaluation_with_its_metadata(tmp_path):
    trunk, metadata = files.trunk_state(last="layer3"), metadata_of("resnet18", 5)
    export(trunk, metadata, tmp_path / "t.safetensors")
    assert read_encoder(tmp_path / "t.safetensors")[1] == metadata


def test_the_official_file_is_plain_tensors_in_an_ordered_dict(tmp_path):
    trunk = files.trunk_state()
    export(trunk, metadata_of("resnet18", 1), tmp_path / "t.pth")
    content = torch.load(tmp_path / "t.pth", weights_only=True)
    assert type(content).__name__ == "OrderedDict"
    assert list(content) == list(trunk)


def test_nothing_is_replaced_unasked(tmp_path):
    path = tmp_path / "t.pth"
    path.write_text("precious")
    trunk, metadata = files.trunk_state(), metadata_of("resnet18", 1)
    with pytest.raises(UsageError, match="--force replaces it"):
        export(trunk, metadata, path)
    assert path.read_text() == "precious"
    export(trunk, metadata, path, force=True)
    assert read_weights(path).metadata.architecture == "resnet18"


@pytest.mark.parametrize("name", ["t", "t.pt", "t.safetensor", "t.PTH"])
def test_other_endings(tmp_path, name):
    with pytest.raises(UsageError, match=r"write \.safetensors or \.pth"):
        export({}, metadata_of("resnet18", 1), tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"padding": "reflect"}, "cannot say that padding is reflect"),
        ({"stride_1_layers": ("layer4",)}, "cannot say that stride_1_layers is"),
        ({"mean": (0.5, 0.5, 0.5)}, "cannot say that mean is"),
        ({"architecture": "foreign_trunks:Plain"}, "knows ResNets only"),
    ],
)
def test_the_official_layout_is_not_written_where_it_would_lie(tmp_path, changes, message):
    metadata = metadata_of("resnet18", 1).model_copy(update=changes)
    with pytest.raises(UsageError, match=f"{message}.*write .safetensors"):
        export(files.trunk_state(), metadata, tmp_path / "t.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch, ending):
    import resource
    import signal

    trunk, metadata = files.trunk_state(), metadata_of("resnet18", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))  # as a full disk: writing stops midway
    try:
        with pytest.raises(HvcError, match="cannot write"):
            export(trunk, metadata, tmp_path / f"t{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@given(
    stem=st.from_regex(r"[a-z][a-z0-9_.-]{0,8}[a-z0-9]", fullmatch=True),
    ending=st.sampled_from([".pth", ".pth.tar", ".pt", ".bin", ".ckpt"]),
)
def test_the_default_name_is_beside_and_another(tmp_path_factory, stem, ending):
    path = tmp_path_factory.getbasetemp() / f"{stem}{ending}"
    destination = import_destination(path)
    assert (destination.parent, destination.suffix) == (path.parent, ".safetensors")
    assert destination != path


def test_an_import_does_not_replace_its_source(tmp_path):
    with pytest.raises(UsageError, match="name an OUTPUT"):
        import_destination(tmp_path / "encoder.safetensors")
