"""Making the output folder: what a person has to put right, and what may pass."""

import errno
import os
from pathlib import Path

import pytest

from hvc.base.errors import PlaceError, UsageError
from hvc.pretrain.output import hold_folder
from hvc.pretrain.recipe import TrainConfig


@pytest.mark.parametrize(
    ("number", "is_wrong"),
    [
        (errno.EACCES, True),
        (errno.EROFS, True),
        (errno.ENOSPC, False),
        (errno.EDQUOT, False),
        (errno.ESTALE, False),
        (errno.EIO, False),
    ],
)
def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch, number, is_wrong):
    def fail(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", fail)
    config = TrainConfig.parse({"data": "nowhere", "output": str(tmp_path / "run")})
    with pytest.raises(PlaceError, match=r"cannot write to .*run: .*; choose another output=") as caught:
        hold_folder(config).__enter__()
    assert isinstance(caught.value, UsageError) == is_wrong
    assert caught.value.exit_code == (2 if is_wrong else 1)


@pytest.mark.parametrize("place", ["/proc/x/run", "file", "file/run"])
def test_a_place_that_is_no_folder(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    config = TrainConfig.parse({"data": "nowhere", "output": str(tmp_path / place)})
    with pytest.raises(UsageError, match="cannot write to"):
        hold_folder(config).__enter__()
