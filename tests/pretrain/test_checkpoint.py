"""Contract 2: a checkpoint exists only when it is complete, and damage is found."""

import pytest
import torch

from hvc.base.errors import HvcError
from hvc.pretrain import checkpoint as checkpoints
from hvc.pretrain.checkpoint import (
    CheckpointWriter,
    merge_buffers,
    newest,
    open_checkpoint,
    prune,
    step_name,
)


def write(root, step, world_size=1):
    writer = CheckpointWriter(root, step, attempt=1)
    for rank in range(world_size):
        writer.write_tensors(f"buffers-{rank:05d}", {"bn.running_mean": torch.full((2,), float(rank))})
    writer.write_tensors("model", {"w": torch.arange(4.0)})
    return writer.commit({"step": step, "world_size": world_size})


def test_what_is_not_committed_does_not_exist(tmp_path):
    writer = CheckpointWriter(tmp_path, 5, attempt=1)
    writer.write_tensors("model", {"w": torch.zeros(2)})
    assert newest(tmp_path) is None
    checkpoints.clear_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_intact_one_is_taken(tmp_path, caplog):
    write(tmp_path, 10)
    later = write(tmp_path, 20)
    assert newest(tmp_path).step == 20
    path = later.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert newest(tmp_path).step == 10
    assert "altered" in caplog.text


def test_damage_is_named(tmp_path):
    done = write(tmp_path, 3)
    (done.folder / "state.json").unlink()
    with pytest.raises(HvcError, match=r"state\.json: missing"):
        open_checkpoint(done.folder)
    with pytest.raises(HvcError, match="not a complete checkpoint"):
        open_checkpoint(tmp_path)


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [step_name(3), step_name(4)]


def test_merged_statistics_are_those_of_all_data():
    torch.manual_seed(0)
    parts = [torch.randn(500, 3) * (n + 1) + n for n in range(3)]
    ranks = [{"bn.running_mean": x.mean(0), "bn.running_var": x.var(0, correction=0)} for x in parts]
    merged = merge_buffers(ranks)
    together = torch.cat(parts)
    torch.testing.assert_close(merged["bn.running_mean"], together.mean(0))
    torch.testing.assert_close(merged["bn.running_var"], together.var(0, correction=0))


def test_another_number_of_ranks_gets_merged_buffers(tmp_path):
    done = write(tmp_path, 7, world_size=2)
    assert done.buffers(1, 2)["bn.running_mean"].tolist() == [1.0, 1.0]
    same = {"bn.running_mean": torch.zeros(2), "bn.running_var": torch.ones(2)}
    assert merge_buffers([same, same])["bn.running_var"].tolist() == [1.0, 1.0]
    assert done.buffers(0, 3)["bn.running_mean"].tolist() == [0.5, 0.5]
