"""A trunk kept beside the results of an evaluation in parts: training may remove its checkpoint meanwhile.

The first part that begins leaves a hard link of the trunk's file, or a copy, for the parts and the scoring
that come later; when the scores are with their run it goes.
"""

import logging
import os
import shutil
import uuid
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.base.storage import sha256_file
from hvc.evaluation.evaluate_config import EvaluateConfig
from hvc.evaluation.trunks.at_mlflow import recorded
from hvc.evaluation.trunks.pruned import RemovedError
from hvc.evaluation.trunks.resolve import resolve
from hvc.evaluation.trunks.trunk import Trunk
from hvc.pretrain.checkpoints.checkpoint import Checkpoint

_log = logging.getLogger(__name__)


def resolve_or_kept(config: EvaluateConfig, reference: str, uri: str) -> Trunk:
    """The trunk; one that training removed from where an earlier part kept it, else HvcError."""
    try:
        return resolve(reference, uri)
    except RemovedError:
        kept = _kept(config, reference, uri) if reference.startswith(("runs:/", "models:/")) else None
        if kept is None:
            raise
        return kept


def keep(trunk: Trunk | None, folder: Path) -> None:
    """Keep a checkpoint's trunk in a results folder; where that fails the log says so."""
    if trunk is None or trunk.encoder is None or not isinstance(trunk.held, Checkpoint):
        return
    target = folder / f"trunk-{trunk.held.sha256}-{trunk.sha256}.safetensors"
    if target.exists():
        return
    temporary = folder / f".trunk-{uuid.uuid4().hex}.tmp"
    try:
        try:
            os.link(trunk.encoder.resolve(), temporary)
        except OSError:  # another file system, or a copy without a name
            shutil.copyfile(trunk.encoder, temporary)
        temporary.replace(target)
    except OSError as error:
        _log.warning("cannot keep the trunk for later parts in %s: %s", folder, error.strerror)
    finally:
        temporary.unlink(missing_ok=True)


def forget(folder: Path) -> None:
    """Remove what was kept in a results folder."""
    for path in folder.glob("trunk-*.safetensors"):
        path.unlink(missing_ok=True)


def _kept(config: EvaluateConfig, reference: str, uri: str) -> Trunk | None:
    found = recorded(reference, uri)
    for path in config.results_root.glob(f"*/trunk-{found.record['sha256']}-*.safetensors"):
        digest = path.stem.rpartition("-")[2]
        if sha256_file(path) != digest:
            raise HvcError(f"{path}: altered since it was written; remove it")
        _log.info("%s is removed from its run; its trunk was kept at %s", reference, path)
        return Trunk(reference, path, digest, int(found.record["step"]), found.run_id)
    return None
