"""The file COMPLETE, with which a checkpoint begins to count, and the names around it."""

import hashlib
import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hvc.base.errors import HvcError
from hvc.pretrain.weights.tensor_file import FileNote

CHECKPOINT_VERSION = 2
COMPLETE = "COMPLETE"
STATE = "state.json"
MODEL = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
BUFFERS = "buffers.safetensors"
ENCODER = "encoder.safetensors"
_FILES = {STATE, MODEL, OPTIMIZER, BUFFERS, ENCODER}
_FOLDER = re.compile(r"step-\d{8,}")

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class DamagedError(HvcError):
    """A checkpoint is not what was written; an older one may be."""


class Marker(BaseModel):
    """What COMPLETE says."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    version: int
    step: int = Field(ge=0)
    files: dict[FileName, FileNote]
    """Every other file of the checkpoint."""

    def to_bytes(self) -> bytes:
        """The file's content; `check` finds damage to the file itself."""
        content = self.model_dump(mode="json")
        return json.dumps(content | {"check": _check(content)}, indent=1).encode()


def parse_marker(data: bytes, where: str) -> Marker:
    """The content of COMPLETE; DamagedError, or HvcError if a newer hvc has written it."""
    damaged = DamagedError(f"{where}: damaged; use another checkpoint")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(content, dict) or type(content.get("version")) is not int:
        raise damaged
    check, version = content.pop("check", None), content["version"]
    if check != (None if version == 1 else _check(content)):  # version 1 had no check
        raise damaged
    if version > CHECKPOINT_VERSION:
        raise HvcError(f"{where}: checkpoint version {version} is newer than this hvc; update it")
    try:
        marker = Marker.model_validate(content)
    except ValidationError:
        raise damaged from None
    if version < 1 or (version > 1 and marker.files.keys() != _FILES):
        raise damaged
    return marker


def step_name(step: int) -> str:
    """Folder name of a step's checkpoint."""
    return f"step-{step:08d}"


def step_of(folder: str) -> int | None:
    """The step that a folder's name says; None for other names."""
    if not _FOLDER.fullmatch(folder):
        return None
    step = int(folder.removeprefix("step-"))
    return step if step_name(step) == folder else None


def _check(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
