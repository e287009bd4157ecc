"""What a run says of itself on its page in MLflow: the text in `mlflow.note.content`."""

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from hvc.base.addresses import public
from hvc.pretrain.data.dataset import TrainingData
from hvc.pretrain.recipe import TrainConfig

NOTE_TAG = "mlflow.note.content"
"""The tag whose text, markdown, stands at the top of a run's page."""


class Saved(NamedTuple):
    """A complete checkpoint."""

    step: int
    address: str
    sha256: str


def run_note(
    config: TrainConfig,
    data: TrainingData,
    experiment_id: str,
    run_id: str,
    total_steps: int,
    newest: Saved | None = None,
    pictures: Sequence[str] = (),
) -> str:
    """Markdown: what this run is, its pictures, where its newest checkpoint is, and what to type next.

    MLflow shows the first three lines and folds the rest away, so these are what is looked for most. The
    text changes with a checkpoint or a picture only. Links hold at any server, behind any proxy.

    Args:
        experiment_id, run_id: MLflow's ids, for links.
        total_steps: steps of the whole run.
        newest: the newest complete checkpoint, if there is one.
        pictures: artifact path of the newest picture of each kind, `pictures/NAME-STEP.png`, the one
            looked at most first.
    """
    page = f"#/experiments/{experiment_id}/runs/{run_id}/artifacts"
    size = f"{config.views.size} px views, batch {config.batch_size}, {total_steps:,} steps"
    links = [_link(page, path, _name(path)) for path in pictures]
    links += [_link(page, "recipe.yaml"), _link(page, "checkpoints")]
    lines = [
        f"**{config.architecture}** on **{_plain(data.name)}** ({data.samples:,} images): {size}",
        " · ".join(links),
        f"Newest checkpoint: {_checkpoint(newest)}",
        f"Dataset: {_code(public(data.address))}, digest {_code(data.digest[:12])}",
        f"Output folder: {_code(str(config.folder))}, method {_code(config.method_digest()[:12])}",
    ]
    parts = ["  \n".join(lines), "\n".join(["```", *_commands(config, run_id, newest), "```"])]
    parts += [_image(run_id, path) for path in pictures]
    return "\n\n".join(parts) + "\n"


def _commands(config: TrainConfig, run_id: str, newest: Saved | None) -> list[str]:
    """What to type to go on, and to use what there is."""
    recipe = shlex.quote(str(config.folder / "recipe.yaml"))
    lines = ["# go on after an interruption:", f"hvc train {recipe}"]
    if newest:
        lines += [
            "# score it; the results come to this page:",
            f"hvc evaluate runs:/{run_id} davis2016 DAVIS",
            f"hvc evaluate runs:/{run_id}@{newest.step} folder CLIP",
        ]
    return lines


def _checkpoint(newest: Saved | None) -> str:
    if newest is None:
        return "none yet"
    return f"step {newest.step:,}, {_code(newest.address)}, sha256 {_code(newest.sha256[:12])}"


def _name(path: str) -> str:
    """`curves` of `pictures/curves-00000200.png` or `pictures/curves.png`."""
    stem = path.rpartition("/")[2].rpartition(".")[0]
    name, dash, step = stem.rpartition("-")
    return name if dash and step.isdecimal() else stem


def _link(page: str, path: str, words: str | None = None) -> str:
    return f"[{words or path}]({page}/{quote(path, safe='/')})"


def _image(run_id: str, path: str) -> str:
    # Without a host or a leading slash: it holds behind any proxy that serves the page. MLflow drops sizes.
    address = f"get-artifact?path={quote(path, safe='/')}&run_uuid={run_id}"
    return f"![{_name(path)}]({address})"


def _code(text: str) -> str:
    """As code, on one line, whatever is in it."""
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def _plain(text: str) -> str:
    """A name without what markdown or HTML would take for a sign of theirs."""
    return re.sub(r"([\\`*_{}\[\]()#!|<>&])", r"\\\1", text)
