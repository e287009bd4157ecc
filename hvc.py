"""The door: one command, `hvc`. It only wires; a sub-command imports what it needs when it runs.

Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped and saved (run the same command again),
130 interrupted before there was anything to save.
"""

import json
import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

if "__path__" not in globals():  # a checkout: the rooms are the folders beside this file
    __path__ = [str(Path(__file__).resolve().parent)]

import typer

from hvc.base.errors import EXIT_FAILED, HvcError, UsageError
from hvc.base.stage import Provenance, Result, StopFlag

if TYPE_CHECKING:
    from hvc.base.config import Config

_EXIT_INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended

app = typer.Typer(
    name="hvc",
    help="Shard images, pretrain HVC on them across nodes, track it in MLflow, score it on video.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped and saved (run it again), 130 "
    "interrupted before there was anything to save.",
    rich_markup_mode=None,  # it would take [default: ...] and [libby] for markup
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
submit_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run a stage as a Slurm job that is requeued on time-out and preemption and goes on.",
)
app.add_typer(
    submit_app, name="submit", short_help="Run a stage as a Slurm job that is requeued and goes on."
)


class Source(StrEnum):
    """What the input of `hvc shard` is."""

    FOLDER = "folder"
    IMAGENET = "imagenet"


class Benchmark(StrEnum):
    """What `hvc evaluate` can score on."""

    DAVIS2016 = "davis2016"
    FOLDER = "folder"


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value; dots reach into sections.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow address  [default: MLFLOW_TRACKING_URI, else sqlite in outputs/mlflow.db]"),
]
Cluster = Annotated[Path, typer.Option("--cluster", help="Cluster profile (YAML), see configs/clusters.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the sbatch text; submit nothing.")]

ShardInput = Annotated[str, typer.Argument(metavar="INPUT", help="Folder with the images.")]
ShardOutput = Annotated[str, typer.Argument(metavar="OUTPUT", help="A folder or s3://bucket/prefix.")]
TargetMb = Annotated[float, typer.Option(help="Size of a shard in MB.")]
Order = Annotated[str, typer.Option(help="`shuffled` (by the seed) or `input` (sorted paths).")]
Seed = Annotated[int, typer.Option(help="Decides the order.")]
Workers = Annotated[int, typer.Option(help="Processes; 0: one per core.")]
MaxBad = Annotated[
    str, typer.Option(help="Bad images tolerated: a count (`10`) or a share (`0.01`); more fail the run.")
]
Recipe = Annotated[Path, typer.Argument(help="Training recipe (YAML), see configs/.")]
Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="runs:/ID (its newest), runs:/ID@STEP, models:/NAME@ALIAS, a checkpoint folder, an "
        "encoder.safetensors, or baseline:untrained.",
    ),
]
Data = Annotated[str, typer.Argument(metavar="DATA", help="The benchmark's folder.")]


@app.command()
def shard(
    source: Annotated[Source, typer.Argument(help="Layout of the input.")],
    input: ShardInput,  # noqa: A002 - the name users see
    output: ShardOutput,
    name: Annotated[str | None, typer.Option(help="Dataset name  [default: last part of INPUT]")] = None,
    target_mb: TargetMb = 100.0,
    order: Order = "shuffled",
    seed: Seed = 0,
    workers: Workers = 0,
    max_bad: MaxBad = "0.01",
    as_json: AsJson = False,
) -> None:
    """Shard images into WebDataset tars with a manifest.

    Every image is decoded once; bad ones are listed in rejects.jsonl. Killed at any moment, the same
    command goes on and ends with the same bytes; the manifest comes last, so there is never half a
    dataset. S3 credentials come from boto3's ordinary chain, other servers by AWS_ENDPOINT_URL_S3.
    """
    config = _shard_config(source, input, output, name, target_mb, order, seed, workers, max_bad)
    _finish(_run_stage("shard", config), as_json)


@app.command(short_help="Check a sharded dataset against its manifest.")
def verify(
    dataset: Annotated[str, typer.Argument(help="A folder or s3://bucket/prefix.")],
    workers: Annotated[int, typer.Option(help="Shards checked at once.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Check a sharded dataset against its manifest: missing, truncated, altered, surplus files."""
    from hvc.data_prep.verify import verify as check

    report = check(dataset, workers)
    values = {
        "dataset": dataset,
        "ok": report.ok,
        "shards": report.shards,
        "samples": report.samples,
        "bytes": report.bytes,
        "problems": report.problems,
    }
    _show(values, as_json)
    raise typer.Exit(0 if report.ok else EXIT_FAILED)


@app.command(short_help="Pretrain HVC on a sharded dataset, or go on.")
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    processes: Annotated[int, typer.Option(help="Training processes on this machine.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Pretrain HVC on a sharded dataset, or go on from its newest checkpoint.

    Under torchrun or Slurm the place of a process comes from the environment; `--processes` starts
    several on this machine. SIGTERM, SIGUSR2 or Ctrl-C: all ranks save and leave (exit 75).
    """
    from hvc.pretrain.recipe import TrainConfig

    config = TrainConfig.load(recipe, overrides)
    if processes > 1 and "RANK" not in os.environ:
        from hvc.pretrain.processes import run_local

        raise typer.Exit(run_local(processes, sys.argv[1:]))
    result = _run_stage("train", config)
    if os.environ.get("RANK", "0") == "0":
        _finish(result, as_json)
    raise typer.Exit(result.exit_code)


@app.command(short_help="Score a checkpoint by propagating labels on video.")
def evaluate(
    checkpoint: Checkpoint,
    benchmark: Benchmark,
    data: Data,
    overrides: Overrides = None,
    tracking_uri: TrackingUri = None,
    output: Annotated[
        str | None, typer.Option(help="Folder for label maps and pictures  [default: outputs/eval/...]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Propagate labels with a checkpoint's trunk and score them; results go back to its MLflow run.

    Overrides set the protocol, e.g. `protocol.context=20 protocol.input_size=240`, or choose
    `sequences=[libby]`. Defaults are the official HVC protocol.
    """
    config = _evaluate_config(checkpoint, benchmark, data, overrides, tracking_uri, output)
    _finish(_run_stage("evaluate", config), as_json)


@submit_app.command("shard")
def submit_shard(
    source: Annotated[Source, typer.Argument(help="Layout of the input.")],
    input: ShardInput,  # noqa: A002
    output: ShardOutput,
    cluster: Cluster,
    name: Annotated[str | None, typer.Option(help="Dataset name.")] = None,
    target_mb: TargetMb = 100.0,
    order: Order = "shuffled",
    seed: Seed = 0,
    workers: Workers = 0,
    max_bad: MaxBad = "0.01",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Submit `hvc shard` to a cluster."""
    config = _shard_config(source, input, output, name, target_mb, order, seed, workers, max_bad)
    _submit("shard", config, cluster, dry_run, as_json)


@submit_app.command("train")
def submit_train(
    recipe: Recipe,
    cluster: Cluster,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Submit `hvc train` to a cluster: N nodes x M tasks, one process per task."""
    from hvc.pretrain.recipe import TrainConfig

    _submit("train", TrainConfig.load(recipe, overrides), cluster, dry_run, as_json)


@submit_app.command("evaluate")
def submit_evaluate(
    checkpoint: Checkpoint,
    benchmark: Benchmark,
    data: Data,
    cluster: Cluster,
    overrides: Overrides = None,
    tracking_uri: TrackingUri = None,
    output: Annotated[str | None, typer.Option(help="Folder for label maps and pictures.")] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Submit `hvc evaluate` to a cluster."""
    config = _evaluate_config(checkpoint, benchmark, data, overrides, tracking_uri, output)
    _submit("evaluate", config, cluster, dry_run, as_json)


@app.command(short_help="The whole way in small, on photos.")
def demo(
    images: Annotated[
        Path | None, typer.Option(help="Your own photos  [default: those that installed packages ship]")
    ] = None,
    output: Annotated[Path, typer.Option(help="Everything is written below it.")] = Path("demo-output"),
    as_json: AsJson = False,
) -> None:
    """The whole way in small: shard photos, pretrain with two processes, track, evaluate on a clip."""
    from hvc.demo.tour import tour

    values = tour(output, images, say=lambda text: typer.echo(text, err=as_json))
    if as_json:
        _show(values, as_json)


@app.command(short_help="What is installed, reachable and writable.")
def doctor(
    output: Annotated[Path, typer.Option(help="Folder that runs will write to.")] = Path("outputs"),
    tracking_uri: TrackingUri = None,
    s3: Annotated[str | None, typer.Option(help="s3://bucket/prefix that must be writable.")] = None,
    as_json: AsJson = False,
) -> None:
    """What is installed, reachable and writable, and what to do about what is not."""
    from hvc.slurm.doctor import diagnose

    checks = diagnose(output, tracking_uri, s3)
    if as_json:
        typer.echo(json.dumps({"checks": [vars(check) for check in checks]}, indent=1))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("", "what", "found", "what to do", box=None)
        marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
        for check in checks:
            table.add_row(marks[check.status], check.name, check.found, check.advice)
        Console().print(table)
    raise typer.Exit(EXIT_FAILED if any(check.status == "fail" for check in checks) else 0)


def _shard_config(
    source: Source,
    folder: str,
    output: str,
    name: str | None,
    target_mb: float,
    order: str,
    seed: int,
    workers: int,
    max_bad: str,
) -> "Config":
    from hvc.data_prep.shard import ShardConfig

    values = {
        "source": str(source),
        "input": _local_folder("INPUT", folder),
        "output": output,
        "name": name,
        "target_mb": target_mb,
        "order": order,
        "seed": seed,
        "workers": workers,
        "max_bad": _number(max_bad),
    }
    return ShardConfig.parse(values, where="hvc shard")


def _evaluate_config(
    checkpoint: str,
    benchmark: Benchmark,
    data: str,
    overrides: list[str] | None,
    tracking_uri: str | None,
    output: str | None,
) -> "Config":
    from hvc.evaluation.evaluate import EvaluateConfig

    values: dict[str, Any] = {
        "checkpoint": checkpoint,
        "benchmark": str(benchmark),
        "data": _local_folder("DATA", data),
        "tracking_uri": tracking_uri,
        "output": output,
    }
    return EvaluateConfig.parse(values, overrides, where="hvc evaluate")


def _local_folder(argument: str, text: str) -> str:
    # A path would make `s3:/bucket` of an address, and the current folder of an empty text.
    if "://" in text:
        raise UsageError(f"{argument} {text}: this is read from a folder; copy or mount it first")
    if not text.strip():
        raise UsageError(f"{argument} is empty; give a folder")
    return str(Path(text).absolute())


def _number(text: str) -> int | float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise UsageError(f"--max-bad {text}: give a count (10) or a share (0.01)") from None


def _run_stage(name: str, config: "Config") -> Result:
    from hvc.slurm.stages import find, run_of

    return run_of(find(name))(config, StopFlag().listen(), Provenance())


def _submit(stage: str, config: "Config", cluster: Path, dry_run: bool, as_json: bool) -> None:
    from hvc.slurm.cluster import ClusterConfig
    from hvc.slurm.submit import submit

    report = submit(stage, config, ClusterConfig.load(cluster), dry_run=dry_run)
    if dry_run and not as_json:
        typer.echo(report.sbatch)
    else:
        _show(vars(report), as_json)


def _finish(result: Result, as_json: bool) -> NoReturn:
    _show({"outcome": str(result.outcome), **result.report}, as_json)
    raise typer.Exit(result.exit_code)


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values, indent=1, default=str))
        return
    for key, value in values.items():
        for line in _lines(key, value):
            typer.echo(line)


def _lines(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [line for inner, deep in value.items() for line in _lines(f"{key}.{inner}", deep)]
    if isinstance(value, list):
        return [f"{key}: {len(value)}", *(f"  {item}" for item in value)]
    return [f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}"]


def main() -> NoReturn:
    """Run the command; errors meant for people are printed without a traceback."""
    rank = os.environ.get("RANK")
    prefix = f"[rank {rank}] " if rank not in (None, "0") else ""
    logging.basicConfig(level=logging.WARNING, format=f"{prefix}%(message)s", stream=sys.stderr)
    logging.getLogger("hvc").setLevel(logging.INFO)
    try:
        app(prog_name="hvc")
    except HvcError as error:
        sys.stderr.write(f"{prefix}hvc: {error}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:  # before or after typer is in charge
        code: str | int | None = _EXIT_INTERRUPTED
    except SystemExit as end:  # typer exits with its own message, except for Ctrl-C: that is 130, unsaid
        code = end.code
    if code == _EXIT_INTERRUPTED:
        sys.stderr.write(f"{prefix}hvc: interrupted\n")
    raise SystemExit(code)


if __name__ == "__main__":
    main()
