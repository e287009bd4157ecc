"""Whatever happens to the bytes of a checkpoint: never a wrong tensor, always the last good one.

A few hundred seeded cases always; thousands with `make soak`.
"""

import json
import shutil

import pytest
from checkpoint_data import assert_intact, write
from mutation import Cases, damaged, quick_and_soak

from hvc.base.errors import HvcError
from hvc.base.storage import open_store
from hvc.pretrain.checkpoints.checkpoint import newest, open_checkpoint
from hvc.pretrain.checkpoints.retention import clear_unfinished

FILES = [
    "COMPLETE",
    "state.json",
    "model.safetensors",
    "optimizer.safetensors",
    "buffers.safetensors",
    "encoder.safetensors",
]


@pytest.fixture
def root(tmp_path):
    for step in (10, 20):
        write(tmp_path / "c", step)
    return tmp_path / "c"


def differs(name, after, before):
    """Whether the content is another one; of COMPLETE it is the meaning that counts, not the blanks."""
    if not name.endswith("COMPLETE"):
        return after != before
    try:
        return json.loads(after) != json.loads(before)
    except (ValueError, RecursionError):
        return True


def settle(root, changed):
    """What a start finds: an intact checkpoint, and never the changed one as if it were good."""
    found = newest(root)
    assert found is not None
    assert_intact(found)
    if changed:
        assert found.step == 10
        with pytest.raises(HvcError):
            open_checkpoint(root / "step-00000020")


@quick_and_soak(150, 5000)
def test_random_damage(root, count):
    cases = Cases("checkpoint", count)
    for rng in cases:
        path = root / "step-00000020" / rng.choice(FILES)
        before = path.read_bytes()
        after = damaged(before, rng)
        path.write_bytes(after)
        with cases.case(path.name):
            settle(root, differs(path.name, after, before))
        path.write_bytes(before)


def test_every_byte_of_the_marker(root):
    path = root / "step-00000020" / "COMPLETE"
    before = path.read_bytes()
    for at in range(len(before)):
        after = bytearray(before)
        after[at] ^= 1 << at % 8
        path.write_bytes(after)
        settle(root, changed=differs("COMPLETE", bytes(after), before))
    for at in range(0, len(before), 10):
        path.write_bytes(before[:at])
        settle(root, changed=True)
    path.write_bytes(before)
    assert newest(root).step == 20


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("way", ["missing", "empty", "swapped", "folder", "longer"])
def test_files_lost_and_mixed_up(root, name, way):
    path, other = root / "step-00000020" / name, root / "step-00000010" / name
    if way == "longer":
        with path.open("ab") as file:
            file.write(b"\0")
    else:
        path.unlink()
    if way == "empty":
        path.write_bytes(b"")
    elif way == "swapped":
        shutil.copyfile(other, path)
    elif way == "folder":
        path.mkdir()
    settle(root, changed=True)
    clear_unfinished(root)
    assert_intact(newest(root))


def test_foreign_files_and_folders_do_not_matter(root):
    store = open_store(root)
    for name in (
        "step-00000030/readme",
        "step-00000099.zip",
        "step-0000001x/COMPLETE",
        "step-000000040/COMPLETE",
        "STEP-00000050/COMPLETE",
        "old/step-00000060/COMPLETE",
        "step-00000020/notes.txt",
        "step-00000020/more/COMPLETE",
        ".step-00000070/COMPLETE",
    ):
        store.write(name, b"{}")
    found = newest(root)
    assert found.step == 20
    assert_intact(found)


def test_a_folder_under_another_name_is_another_step(root):
    shutil.copytree(root / "step-00000010", root / "step-00000040")
    assert newest(root).step == 20
    shutil.copytree(root / "step-00000010", root / "mine")
    assert_intact(open_checkpoint(root / "mine"))


def test_when_all_are_damaged_there_is_none(root, caplog):
    for path in root.glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[::-1])
    assert newest(root) is None
    assert caplog.text.count("model.safetensors: altered") == 2


@pytest.mark.services
@quick_and_soak(8, 300)
def test_random_damage_in_a_bucket(s3_env, count):
    address = s3_env.bucket("damage") + "/c"
    for step in (10, 20):
        write(address, step)
    store = open_store(address)
    cases = Cases("checkpoint in a bucket", count)
    for rng in cases:
        name = f"step-00000020/{rng.choice(FILES)}"
        before = store.read(name)
        after = None if rng.random() < 0.2 else damaged(before, rng)
        if after is None:
            store.delete(name)
        else:
            store.write(name, after)
        with cases.case(name):
            found = newest(address)
            assert_intact(found)
            lost = after is None or differs(name, after, before)
            assert found.step == (10 if lost else 20)
        store.write(name, before)
