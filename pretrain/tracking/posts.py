"""How each kind of journal line is told to MLflow; every one may be told twice."""

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from hvc.pretrain.tracking.outbox import OUTBOX, drop
from hvc.pretrain.tracking.registry import register
from hvc.pretrain.tracking.runs_note import NOTE_TAG

RECORDS = "checkpoints"
"""Artifact folder of a run that holds one small JSON record per checkpoint."""
RUN_ID, EXPERIMENT_ID = "0RUN0", "0EXPERIMENT0"
"""What a note says for ids that nobody knows before the run is at a server."""
_OWN_NOTE = "hvc.note"
"""Tag with the digest of the description that was set from here."""
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000
_log = logging.getLogger(__name__)


class Post(NamedTuple):
    """Where to."""

    client: Any
    run_id: str
    folder: Path
    """The run's output folder, which file names of the journal start from."""

    def tags(self, tags: dict[str, str]) -> None:
        """Set tags of the run, in as few requests as it takes."""
        from mlflow.entities import RunTag

        items = [RunTag(key, str(value)[:_LONGEST_TAG]) for key, value in tags.items()]
        self.client.log_batch(self.run_id, tags=items)


def send_attempt(post: Post, line: dict[str, Any]) -> None:
    """Begin of an attempt: recipe, data, code, machine; a parameter that changed becomes a tag."""
    from mlflow.entities import Param

    params = {key: value[:_LONGEST_PARAM] for key, value in line["params"].items()}
    there = post.client.get_run(post.run_id).data
    known = there.params
    new = [Param(key, value) for key, value in params.items() if key not in known]
    if new:
        post.client.log_batch(post.run_id, params=new)
    changed = [
        f"{key}: {known[key]} -> {value}" for key, value in params.items() if known.get(key, value) != value
    ]
    tags = dict(line["tags"])
    if changed:
        tags[f"hvc.attempt.{line['number']}.changed"] = "; ".join(changed)
    post.tags(tags)
    post.client.log_text(post.run_id, line["recipe"], "recipe.yaml")
    post.client.log_inputs(post.run_id, [_dataset_input(item) for item in line["inputs"]])
    if f"hvc.attempt.{line['number']}.outcome" not in there.tags:  # told late, it may have ended
        post.client.update_run(post.run_id, status="RUNNING")


def send_checkpoint(post: Post, line: dict[str, Any]) -> None:
    """A complete checkpoint: version in the registry, alias, tag, and last its record."""
    record = line["record"]
    known = {"address": record["address"], "sha256": record["sha256"], "step": record["step"]}
    source = f"runs:/{post.run_id}/{RECORDS}"
    register(post.client, line["model"], post.run_id, source, known | {"time": line["time"]})
    post.tags({f"hvc.checkpoint.{key}": str(record[key]) for key in ("step", "address", "sha256")})
    # Last: the record says that all of this was done.
    post.client.log_dict(post.run_id, record, f"{RECORDS}/step-{record['step']:08d}.json")


def send_file(post: Post, line: dict[str, Any]) -> None:
    """A file as an artifact; one that is gone is said and left out."""
    for place in (line["file"], line.get("else")):
        path = post.folder / place if place else None
        if path is not None and path.is_file():
            break
    else:
        _log.warning("%s is gone and does not become an artifact of the run", post.folder / line["file"])
        return
    post.client.log_artifact(post.run_id, str(path), line["folder"])
    if Path(line["file"]).parts[0] == OUTBOX:
        drop(post.folder / line["file"])


def send_note(post: Post, line: dict[str, Any]) -> None:
    """The description on the run's page; one that somebody wrote there by hand stays."""
    run = post.client.get_run(post.run_id)
    there = run.data.tags.get(NOTE_TAG, "")
    if there and _digest(there) != run.data.tags.get(_OWN_NOTE):
        return
    text = line["text"].replace(RUN_ID, post.run_id).replace(EXPERIMENT_ID, run.info.experiment_id)
    text = text[:_LONGEST_TAG]
    post.tags({_OWN_NOTE: _digest(text)})
    post.tags({NOTE_TAG: text})


def send_state(post: Post, line: dict[str, Any]) -> None:
    """End of an attempt."""
    if line.get("attempt"):
        ended = datetime.fromtimestamp(line["time"] / 1000, UTC).isoformat(timespec="seconds")
        name = f"hvc.attempt.{line['attempt']}"
        post.tags({f"{name}.ended": ended, f"{name}.outcome": line["outcome"]})
    if line["status"] == "SCHEDULED":
        post.client.update_run(post.run_id, status="SCHEDULED")
    else:
        post.client.set_terminated(post.run_id, line["status"], end_time=line["time"])


SENDERS: dict[str, Callable[[Post, dict[str, Any]], None]] = {
    "attempt": send_attempt,
    "checkpoint": send_checkpoint,
    "picture": send_file,
    "artifact": send_file,
    "note": send_note,
    "state": send_state,
}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _dataset_input(item: dict[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=item["name"],
        digest=item["digest"][:32],  # MLflow allows 36 characters; the source holds all 64
        source_type="hvc-manifest",
        source=json.dumps({"uri": item["uri"], "digest": item["digest"], "weight": item["weight"]}),
        profile=json.dumps({"samples": item["samples"], "shards": item["shards"]}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
