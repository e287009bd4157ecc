"""The demo: every stage of the product once, on real photos, in minutes on two cores."""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvc.base.errors import EXIT_STOPPED, HvcError
from hvc.demo.child import run
from hvc.pretrain.tracking.journal import JOURNAL, metric_records
from hvc.pretrain.train_text import where_to_look

SIZE = 96
BATCH = 16
STEPS = 40
PROCESSES = 2
CONTEXT = 7
Say = Callable[[str], None]
# Until the command is in charge, Ctrl-C ends it without a word: it has done nothing yet.
_PROGRAM = "import signal as s; s.signal(s.SIGINT, s.SIG_DFL); import hvc; hvc.main()"


class StoppedError(HvcError):
    """A command was stopped and saved (exit 75)."""

    exit_code = EXIT_STOPPED


def tour(output: Path, images: Path | None, say: Say) -> dict[str, Any]:
    """Shard, pretrain, track, evaluate; returns the table's values and where to look.

    Finished parts of an earlier run are kept, so a second call is quick. Raises HvcError with the
    failing command's own words, and StoppedError when a signal made a command save and leave.
    """
    start = time.monotonic()
    root = output.absolute()
    photos = images.absolute() if images else _photos(root, say)
    clip = _clip(root, say)
    dataset = root / ("dataset" if images is None else f"dataset-{photos.name}")
    say(f"sharding {photos} -> {dataset}")
    shards = _hvc("shard", "folder", str(photos), str(dataset), "--target-mb", "4")
    say(f"  {shards['samples']} images in {shards['shards']} shards, {shards['rejected']} rejected")

    run = root / ("run" if images is None else f"run-{photos.name}")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root}/mlflow.db"
    say(f"pretraining {STEPS} steps of {BATCH} images with {PROCESSES} processes (a few minutes)")
    training = _train(root, dataset, run, uri)
    scores = {}
    for label, reference in (
        ("untrained", "baseline:untrained"),
        ("trained", f"runs:/{training['run_id']}"),
    ):
        say(f"evaluating the {label} trunk on {clip}")
        scores[label] = _evaluate(reference, clip, root, uri)
    values = {
        "images": shards["samples"],
        "loss": [training["first_loss"], training["last_loss"]],
        "untrained_jf": scores["untrained"]["scores"]["jf_mean"],
        "trained_jf": scores["trained"]["scores"]["jf_mean"],
        "run_id": training["run_id"],
        "tracking_uri": uri,
        "pictures": scores["trained"]["pictures"],
        "seconds": time.monotonic() - start,
    }
    for line in _table(values, training, uri):
        say(line)
    return values


def _photos(root: Path, say: Say) -> Path:
    from hvc.demo.photos import collect_photos

    folder = root / "photos"
    if not (folder / ".complete").exists():
        say(f"cutting tiles from the photos that installed packages ship -> {folder}")
        count = collect_photos(folder)
        (folder / ".complete").write_text(f"{count}\n")
    return folder


def _clip(root: Path, say: Say) -> Path:
    from hvc.demo.clip import make_clip

    folder = root / "clip"
    if not (folder / ".complete").exists():
        say(f"making a clip with exact masks -> {folder}")
        make_clip(folder)
        (folder / ".complete").write_text("")
    return folder


def _train(root: Path, dataset: Path, run: Path, uri: str) -> dict[str, Any]:
    recipe = root / "recipe.yaml"
    recipe.write_text(
        f"""# What the demo trains; `hvc train` runs it again.
name: demo
data: {json.dumps(str(dataset))}
output: {json.dumps(str(run))}
batch_size: {BATCH}
steps: {STEPS}
views: {{size: {SIZE}}}
workers: 1
log_every: 5
checkpoint: {{every: 20, keep: 2}}
tracking: {{uri: {json.dumps(uri)}, experiment: hvc-demo, model: hvc-demo}}
"""
    )
    result = _hvc("train", str(recipe), "--processes", str(PROCESSES))
    records = metric_records(run / JOURNAL)
    losses = [record["train/loss"] for record in records]
    speeds = sorted(record["perf/images_per_second"] for record in records)
    extra = {"first_loss": losses[0], "last_loss": losses[-1], "speed": speeds[len(speeds) // 2]}
    return result | extra


def _evaluate(reference: str, clip: Path, root: Path, uri: str) -> dict[str, Any]:
    options = ["--output", str(root / "eval"), "--tracking-uri", uri]
    settings = [f"protocol.context={CONTEXT}", "experiment=hvc-demo"]
    return _hvc("evaluate", reference, "folder", str(clip), *settings, *options)


def _hvc(*arguments: str) -> dict[str, Any]:
    # The very commands a user would type, each in a process of its own.
    done = run([sys.executable, "-c", _PROGRAM, *arguments, "--json"])
    if done.code == EXIT_STOPPED or (done.heard and not done.code):
        raise StoppedError(
            f"stopped and saved in `hvc {arguments[0]}`; the same command goes on from there"
        )
    if done.heard:
        raise KeyboardInterrupt
    if done.code:
        raise HvcError(f"`hvc {' '.join(arguments)}` ended with {done.code}; its words are above")
    return json.loads(done.output)


def _table(values: dict[str, Any], training: dict[str, Any], uri: str) -> list[str]:
    first, last = values["loss"]
    mlflow = f"{shlex.quote(sys.executable)} -m mlflow"
    return [
        "",
        f"  loss                {first:+.2f} -> {last:+.2f} in {STEPS} steps, "
        f"{training['speed']:.0f} images/s",
        f"  J&F untrained       {values['untrained_jf']:.1f}",
        f"  J&F trained         {values['trained_jf']:.1f}",
        f"  run                 runs:/{values['run_id']}",
        f"  checkpoint          {training['checkpoint']}",
        *(f"  picture             {path}" for path in values["pictures"]),
        *(f"  {word:<20}{text}" for word, text in where_to_look(uri, mlflow)),
        f"  took                {values['seconds']:.0f} s",
    ]
