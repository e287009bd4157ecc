"""From a path or `s3://` address to a trunk: a checkpoint, our own trunk file, or anybody's weights."""

import tempfile
from pathlib import Path

from hvc.base.errors import HvcError, PlaceError, UsageError
from hvc.base.storage import MissingError, open_store, sha256_file
from hvc.evaluation.trunks.pruned import refuse_removed
from hvc.evaluation.trunks.trunk import Trunk, trunk_of
from hvc.pretrain.checkpoints.checkpoint import Checkpoint, DamagedError, complete_steps, open_checkpoint
from hvc.pretrain.checkpoints.marker import ENCODER, STATE
from hvc.pretrain.tracking.run_note import RunNote

_OURS = ".safetensors"
_THEIRS = (".pth", ".pt", ".tar", ".ckpt", ".bin")


def from_path(reference: str) -> Trunk:
    """The trunk at a path or in a bucket; HvcError when there is none, or it is damaged."""
    if reference.startswith("s3://"):
        return _from_bucket(reference)
    path = Path(reference)
    if path.is_dir():
        if (path / "checkpoints").is_dir():
            raise UsageError(f"{path} is a run's folder; name one of the checkpoints in it")
        return _from_folder(reference)
    if not path.is_file():
        refuse_removed(reference, reference)
        raise HvcError(
            f"{reference}: no such checkpoint; give runs:/ID, models:/NAME@ALIAS, a checkpoint (folder or "
            "s3://bucket/prefix), an encoder.safetensors, weights as others publish them (.pth), or "
            "baseline:untrained"
        )
    if path.suffix in _THEIRS:
        return _imported(reference, path)
    return _from_file(reference, path, None)


def _from_folder(reference: str) -> Trunk:
    """A checkpoint, in a folder or a bucket; UsageError where that holds several."""
    try:
        return _from_checkpoint(reference)
    except DamagedError:
        steps = complete_steps(reference)
        if steps:
            last = f"{reference.rstrip('/')}/step-{steps[-1]:08d}"
            raise UsageError(
                f"{reference} holds several checkpoints; name one of them, e.g. {last}"
            ) from None
        refuse_removed(reference, reference)
        raise


def _from_checkpoint(reference: str) -> Trunk:
    checkpoint = open_checkpoint(reference, files=[ENCODER, STATE])
    return trunk_of(reference, checkpoint, _run_of(checkpoint))


def _run_of(checkpoint: Checkpoint) -> str | None:
    """The run that made a checkpoint: by its own word, else by the note in the run's folder.

    A checkpoint may have been written before the server had made the run.
    """
    state = checkpoint.state
    known = state.get("run_id") or (state.get("tracking") or {}).get("run_id")
    if not known and not checkpoint.address.startswith("s3://"):
        note = RunNote.read(Path(checkpoint.address).parent.parent)
        known = note.run_id if note else None
    return str(known) if known else None


def _from_bucket(reference: str) -> Trunk:
    if not reference.endswith((_OURS, *_THEIRS)):
        return _from_folder(reference)
    place, _, name = reference.rpartition("/")
    folder = tempfile.TemporaryDirectory(prefix="hvc-encoder-")
    path = Path(folder.name, name)
    try:
        with path.open("wb") as file:
            open_store(place).fetch(name, file)
    except MissingError as error:
        raise HvcError(f"{reference}: no such checkpoint ({error})") from None
    except OSError as error:
        raise PlaceError(f"cannot copy {reference} to {path}: {error.strerror}; free some space") from None
    if path.suffix in _THEIRS:
        return _imported(reference, path)
    return _from_file(reference, path, folder)


def _from_file(reference: str, path: Path, held: object) -> Trunk:
    from hvc.pretrain.weights.encoder_file import read_encoder

    _, metadata = read_encoder(path)
    return Trunk(reference, path, sha256_file(path), metadata.step, held=held)


def _imported(reference: str, path: Path) -> Trunk:
    """Weights of another layout, as `hvc import` would write them, into a temporary file."""
    from hvc.pretrain.weights.export import export
    from hvc.pretrain.weights.official import read_weights

    found = read_weights(path)
    folder = tempfile.TemporaryDirectory(prefix="hvc-encoder-")
    encoder = Path(folder.name, ENCODER)
    export(found.state, found.metadata, encoder)
    return Trunk(reference, encoder, sha256_file(path), found.metadata.step, held=folder)
