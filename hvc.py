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
from hvc.data_prep.source_names import Source

if TYPE_CHECKING:
    from rich.console import Console

    from hvc.base.config import Config
    from hvc.evaluation.evaluate_config import EvaluateConfig
    from hvc.slurm.job_choice import Chosen
    from hvc.slurm.operations import Done
    from hvc.slurm.pipeline_config import PipelineConfig
    from hvc.slurm.submission import Submission

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


class Benchmark(StrEnum):
    """What `hvc evaluate` and its kin work on."""

    DAVIS2016 = "davis2016"
    DAVIS2016_MERGED = "davis2016-merged"
    DAVIS2017 = "davis2017"
    DAVIS2017_TEST_DEV = "davis2017-test-dev"
    YOUTUBE_VOS_2018 = "youtube-vos-2018"
    YOUTUBE_VOS_2019 = "youtube-vos-2019"
    VOST = "vost"
    VIP = "vip"
    JHMDB = "jhmdb"
    FOLDER = "folder"


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value; dots reach into sections.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow address  [default: MLFLOW_TRACKING_URI, else outputs/mlflow.db here]"),
]
Cluster = Annotated[Path, typer.Option("--cluster", help="Cluster profile (YAML), see configs/clusters.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the sbatch text and the config; submit nothing.")
]
Unchecked = Annotated[
    bool,
    typer.Option("--unchecked", help="Don't look first whether paths, servers, partition are there."),
]
DefaultCluster = Annotated[
    Path | None, typer.Option("--cluster", help="Cluster profile (YAML) of stages that name none.")
]
Only = Annotated[
    str | None, typer.Option(help="Only these, e.g. `libby,blackswan`  [default: all, none may lack]")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that exists.")]

Places = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT... OUTPUT",
        help="What to shard: a folder, a .zip or .tar, a video file, or one of these at s3://; "
        "SOURCE:INPUT gives one a layout of its own. Last comes the output: a folder or "
        "s3://bucket/prefix.",
    ),
]
Layout = Annotated[Source, typer.Argument(metavar="SOURCE", help="How the inputs lie on disk.")]
DatasetName = Annotated[str | None, typer.Option("--name", help="Dataset name  [default: from INPUT]")]
TargetMb = Annotated[float, typer.Option(help="Size of a shard in MB.")]
MinShards = Annotated[int, typer.Option(help="At least so many shards.")]
Order = Annotated[
    str, typer.Option(help="`shuffled` (by the seed; videos as a whole) or `input` (sorted paths).")
]
Seed = Annotated[int, typer.Option(help="Decides the order.")]
Check = Annotated[
    str, typer.Option(help="How images are checked: `none`, `header` or `full` (everything decoded).")
]
MaxSide = Annotated[int | None, typer.Option(help="Make images with a longer side smaller, as JPEGs.")]
Quality = Annotated[
    int | None, typer.Option(help="JPEG quality (else 92); without --max-side all are encoded anew.")
]
With = Annotated[str, typer.Option("--with", help="What travels along, e.g. `labels,captions,masks`.")]
Dedupe = Annotated[bool, typer.Option("--dedupe", help="Leave out files that are the same to the byte.")]
Fps = Annotated[float | None, typer.Option(help="Video files: frames per second to take.")]
Stride = Annotated[int | None, typer.Option(help="Video files: or every so manyth frame.")]
Workers = Annotated[int, typer.Option(help="Processes; 0: one per core.")]
MaxBad = Annotated[
    str, typer.Option(help="Bad images tolerated: a count (`10`) or a share (`0.01`); more fail the run.")
]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A folder or s3://bucket/prefix.")]
Recipe = Annotated[Path, typer.Argument(help="Training recipe (YAML), see configs/.")]
Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="runs:/ID (its newest; the first digits of the id do), runs:/ID@STEP, models:/NAME@ALIAS, a "
        "checkpoint (folder or s3://bucket/.../step-N), an encoder.safetensors, weights as others publish "
        "them (.pth), or baseline:untrained, baseline:pixels, baseline:first-mask.",
    ),
]
Data = Annotated[str, typer.Argument(metavar="DATA", help="The benchmark's folder.")]
Merge = Annotated[
    str | None,
    typer.Option(metavar="CHECKPOINT", help="A second trunk: features side by side, as in HVC's paper."),
]
Results = Annotated[
    str | None, typer.Option(help="Folder for label maps and pictures  [default: outputs/eval/...]")
]
Job = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="A job id (7, or 7_3 for a task of an array), a submission's folder or name, or a run's id; "
        "the beginning will do.",
    ),
]
JobFolders = Annotated[
    list[Path] | None,
    typer.Option("--folder", help="Look below this folder  [default: all that you submitted to]"),
]
Parts = Annotated[int, typer.Option(help="Runs that share the sequences, each with its --part.", min=1)]


@app.command()
def shard(
    source: Layout,
    places: Places,
    name: DatasetName = None,
    target_mb: TargetMb = 100.0,
    min_shards: MinShards = 1,
    order: Order = "shuffled",
    seed: Seed = 0,
    check: Check = "full",
    max_side: MaxSide = None,
    quality: Quality = None,
    extras: With = "",
    dedupe: Dedupe = False,
    fps: Fps = None,
    stride: Stride = None,
    max_bad: MaxBad = "0.01",
    workers: Workers = 0,
    parts: Annotated[int, typer.Option(help="Runs that share the work, each with its --part.")] = 1,
    part: Annotated[
        int | None,
        typer.Option(help="Make this part (from 0) only; the command without it finishes the dataset."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Shard images into WebDataset tars with a manifest, e.g. `hvc shard folder photos dataset`.

    Bad images are listed in rejects.jsonl. Killed at any moment, the same command goes on and ends with
    the same bytes; the manifest comes last, so there is never half a dataset. S3 credentials come from
    boto3's ordinary chain, other servers by AWS_ENDPOINT_URL_S3.
    """
    config = _shard_config(**locals())  # every parameter, by its name
    result = _run_stage("shard", config)
    if as_json or "digest" not in result.report:
        _finish(result, as_json)
    from hvc.data_prep.summary import lines

    typer.echo("\n".join(lines(result.report)))
    raise typer.Exit(result.exit_code)


@app.command(short_help="Check a sharded dataset against its manifest, and repair it.")
def verify(
    dataset: Dataset,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="With --repair: what the dataset was made from."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remake what is damaged or missing, remove what is surplus.")
    ] = False,
    stock: Annotated[
        bool, typer.Option("--stock", help="Read every shard by stock webdataset, too (in a folder).")
    ] = False,
    workers: Annotated[int, typer.Option(help="Shards checked at once.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Check a sharded dataset against its manifest: missing, truncated, altered, surplus files.

    `--repair INPUT...` makes exactly the damaged files again, from the inputs of `hvc shard` in the same
    order; a file is replaced only by one with the hash that the manifest has.
    """
    from hvc.data_prep.repair import report_of

    if bool(inputs) != repair:
        raise UsageError("give --repair and the inputs that the dataset was made from together")
    values = report_of(dataset, inputs or [], workers, stock=stock)
    _show(values, as_json)
    raise typer.Exit(0 if values["ok"] else EXIT_FAILED)


@app.command(short_help="What is in a sharded dataset.")
def inspect(
    dataset: Dataset,
    picture: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of samples to this .png or .jpg.")
    ] = None,
    video: Annotated[str | None, typer.Option(help="Where the frames of this video lie.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Look at every sample, not at some.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is in a sharded dataset: counts, sizes, formats, videos, and what was rejected.

    Images are judged by samples spread evenly over the dataset, read one by one; also on S3.
    """
    from hvc.data_prep.overview import overview
    from hvc.data_prep.overview_text import frame_lines, overview_lines
    from hvc.data_prep.video_frames import video_frames

    if picture is not None:
        from hvc.data_prep.contact_sheet import contact_sheet, need_picture_name

        need_picture_name(picture)
    if video is not None:
        frames = video_frames(dataset, video)
        values, lines = {"video": video, "frames": [vars(one) for one in frames]}, frame_lines(frames)
    else:
        seen = overview(dataset, every)
        values, lines = seen.values(), overview_lines(seen)
    if as_json:
        _show(values, as_json)
    else:
        typer.echo("\n".join(lines))
    if picture is not None:
        count = contact_sheet(dataset, picture)
        typer.echo(f"{picture}: {count} samples", err=as_json)


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
        from hvc.pretrain.training.processes import run_local

        raise typer.Exit(run_local(processes, sys.argv[1:]))
    result = _run_stage("train", config)
    if os.environ.get("RANK", "0") == "0":
        if as_json:
            _finish(result, as_json)
        from hvc.pretrain.train_text import report_lines

        typer.echo("\n".join(report_lines(result)))
    raise typer.Exit(result.exit_code)


@app.command("bench-data", short_help="How fast a sharded dataset streams.")
def bench_data(
    dataset: Dataset,
    recipe: Annotated[
        Path | None,
        typer.Option("--config", help="Recipe with batch size, views and stream  [default: defaults]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Loader processes  [default: the recipe's]", min=0)
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for each of six stages.", min=0.1)] = 5.0,
    gpu_images_per_second: Annotated[
        float, typer.Option(help="What one GPU takes; `hvc train` reports it.", min=1)
    ] = 1500.0,
    ranks: Annotated[int, typer.Option(help="Training processes that share a batch.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure how fast a dataset is read, decoded and cut into views here, and how well it is shuffled.

    Nothing is trained. Run it on a compute node before staking time on many: it says how long a GPU
    would wait for images, and what to change.
    """
    from rich.console import Console

    from hvc.pretrain.data.bench import bench
    from hvc.pretrain.data.bench_text import lines
    from hvc.pretrain.data.dataset import load_data
    from hvc.pretrain.recipe import TrainConfig

    values = TrainConfig.load(recipe).resolved() if recipe else {}
    values |= {"data": dataset} | ({} if workers is None else {"workers": workers})
    config = TrainConfig.parse(values, where="hvc bench-data")
    with Console(stderr=True).status("") as status:
        report = bench(config, load_data(config), seconds, ranks, status.update)
    if as_json:
        typer.echo(json.dumps(report.values(gpu_images_per_second), indent=1))
    else:
        typer.echo("\n".join(lines(report, gpu_images_per_second)))


@app.command(short_help="Score a checkpoint by propagating labels on video.")
def evaluate(
    checkpoint: Checkpoint,
    benchmark: Benchmark,
    data: Data,
    overrides: Overrides = None,
    merge: Merge = None,
    tracking_uri: TrackingUri = None,
    output: Results = None,
    parts: Parts = 1,
    part: Annotated[
        int | None,
        typer.Option(help="Label this share (from 0) only; the command without it scores and reports."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Propagate labels with a checkpoint's trunk and score them; results go back to its MLflow run.

    Each benchmark has a protocol; `preset=crw` takes another one, and overrides change its numbers, e.g.
    `protocol.context=20 protocol.input_size=240`. `sequences=[libby]` chooses, `workers=4` sets how many
    sequences are done at once.
    """
    config = _evaluate_config(**locals())  # every parameter, by its name
    result = _run_stage("evaluate", config)
    if as_json:
        _finish(result, as_json)
    from hvc.evaluation.reports.report_values import brief

    _finish(Result(result.outcome, brief(result.report)), as_json)


@app.command(short_help="Evaluate every new checkpoint of an experiment.")
def watch(
    experiment: Annotated[str, typer.Argument(metavar="EXPERIMENT", help="MLflow experiment.")],
    benchmark: Benchmark,
    data: Data,
    overrides: Overrides = None,
    once: Annotated[bool, typer.Option("--once", help="End when every checkpoint has its score.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 60.0,
    alias: Annotated[str, typer.Option(help="Of the registered model: its best checkpoint.")] = "best",
    merge: Merge = None,
    tracking_uri: TrackingUri = None,
    output: Results = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate each checkpoint that training registers, the newest first, and point `best` to the best.

    What is done is read from the runs: end it, kill it, start it elsewhere or twice, nothing is computed
    twice. An MLflow server that is away is waited for. Exits 1 if a checkpoint could not be evaluated.
    """
    from hvc.evaluation.watching.watch import watch as watch_experiment

    any_one = "baseline:untrained"
    template = _evaluate_config(any_one, benchmark, data, overrides, tracking_uri, output, merge)
    listening = StopFlag().listen()
    result, code = watch_experiment(
        template, experiment, listening, once=once, interval=interval, alias=alias
    )
    _show({"outcome": str(result.outcome), **result.report}, as_json)
    raise typer.Exit(code)


@app.command("score", short_help="Score any method's masks or joints on a benchmark.")
def score_(
    benchmark: Benchmark,
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="Folder of results: NAME/STEM.png, for joints NAME.json."),
    ],
    data: Data,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="For jhmdb: lost_joints=wrong, joint_first_frame=true, as in a protocol."),
    ] = None,
    sequences: Only = None,
    official_decay: Annotated[
        bool,
        typer.Option(
            "--official-decay", help="Decay as the official tools have it: wrong beyond 256 frames."
        ),
    ] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write all scores, per sequence and object, to this file.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Cores to use; 0: all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare results, whatever made them, with a benchmark's ground truth.

    Frame by frame the same numbers as the official tools. Masks may have palettes, be grey, and, of a
    single object, 0/255; a missing frame, another size or an unknown id is an error that names the file.
    """
    from hvc.evaluation.score import score
    from hvc.evaluation.score_text import print_report, write_csv

    names = _sequence_names(sequences)
    folder = Path(_local_folder("DATA", data))
    report = score(
        str(benchmark),
        results,
        folder,
        names,
        overrides=overrides,
        official_decay=official_decay,
        workers=workers,
    )
    if csv is not None:
        write_csv(report, csv)
    if as_json:
        typer.echo(json.dumps(report.values(), indent=1))
    else:
        print_report(report, _console(160))  # lines of a file need not be folded


@app.command("check-results", short_help="Check the format of results, before a server does.")
def check_results_(
    benchmark: Benchmark,
    results: Annotated[
        Path,
        typer.Argument(metavar="RESULTS", help="Folder of results or zip for a server, whatever made it."),
    ],
    data: Data,
    sequences: Only = None,
    as_json: AsJson = False,
) -> None:
    """Hold results against a benchmark's data: all frames there and none besides, sizes, ids, PNG mode.

    The zips: `Annotations/VIDEO/FRAME.png` for YouTube-VOS, sequence folders at the root for DAVIS
    test-dev. Every file that is wrong is named.
    """
    from hvc.evaluation.layouts.benchmarks import BENCHMARKS
    from hvc.evaluation.layouts.result_check import check_results

    names = _sequence_names(sequences)
    wanted = BENCHMARKS[benchmark].read(Path(_local_folder("DATA", data)), names)
    files = check_results(benchmark, wanted, results, chosen=names is not None)
    _show({"ok": True, "files": files, "sequences": len(wanted)}, as_json)


@app.command(short_help="Send MLflow what it missed of runs.")
def sync(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Output folders of runs  [default: all below outputs/]"),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="Another server, which gets all of it  [default: where each run was recorded]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send MLflow what it missed while it was away; what it has already does not get there twice.

    Training does this by itself, while it runs and when it starts again. Exits 1 if something could not
    be sent; a folder that a training run is sending from now is left to it.
    """
    from hvc.pretrain.tracking.sync import folders_with_journal
    from hvc.pretrain.tracking.sync import sync as send

    done = []
    for run in send(folders_with_journal(folders or []), tracking_uri):
        done.append(run)
        if not as_json:
            typer.echo(run.text())
    if as_json:
        typer.echo(json.dumps({"runs": [run.values() for run in done]}, indent=1))
    elif not done:
        typer.echo("no runs below outputs/; give the output folder of one")
    raise typer.Exit(EXIT_FAILED if any(run.failed for run in done) else 0)


@app.command("import", short_help="Other people's trunk into a file that hvc reads.")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Weights: .pth, .pth.tar, .safetensors ...")],
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUTPUT", help="A .safetensors  [default: FILE's name with this ending, beside it]"
        ),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Read a trunk by its names: official HVC, MoCo, CRW, torchvision's ResNet-18/34/50, or our own.

    No code of the file is run. A tensor that is missing, unknown or misshapen is an error; heads,
    classifier and optimiser are left out and counted. `hvc evaluate OUTPUT ...` takes the result.
    """
    from hvc.pretrain.weights.export import export, import_destination, need_destination
    from hvc.pretrain.weights.official import read_weights

    destination = output or import_destination(file)
    need_destination(destination, force, (".safetensors",))
    found = read_weights(file)
    written = export(found.state, found.metadata, destination, force=force)
    _show(written | found.report(), as_json)


@app.command("export", short_help="The trunk of a checkpoint into one file, for others.")
def export_(
    checkpoint: Checkpoint,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="FILE.safetensors (ours), or FILE.pth (the official code's layout)."
        ),
    ],
    seed: Annotated[int, typer.Option(help="Weights of baseline:untrained.", min=0)] = 42,
    tracking_uri: TrackingUri = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write the trunk of a checkpoint, whole or not at all; the .safetensors says how to use it.

    A .pth is what the official inference code loads: a plain state dict, layer4 and buffers included.
    """
    from hvc.evaluation.trunks.weights import weights_of
    from hvc.pretrain.weights.export import export, need_destination

    need_destination(file, force)
    state, metadata = weights_of(checkpoint, tracking_uri, seed)
    _show(export(state, metadata, file, force=force), as_json)


@app.command(short_help="List training runs: state, step, speed, scores.")
def runs(
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "hvc",
    tracking_uri: TrackingUri = None,
    limit: Annotated[int, typer.Option(help="So many of the newest runs.", min=1)] = 20,
    everything: Annotated[bool, typer.Option("--all", help="The runs of all experiments.")] = False,
    as_json: AsJson = False,
) -> None:
    """List runs, those begun last first: state, step, loss, images/s, best scores, newest checkpoint.

    A run of which nothing was heard for long is called silent: its process was killed, or cannot reach
    MLflow. Start it again and it goes on; `hvc sync` sends what a dead server missed.
    """
    import time

    from hvc.evaluation.leaderboard.published import headline_of
    from hvc.evaluation.metrics.measures import label
    from hvc.pretrain.tracking.runs import list_runs, open_tracking
    from hvc.pretrain.tracking.runs_text import WIDTH, print_runs
    from hvc.pretrain.tracking.tracking_uri import default_uri

    uri = tracking_uri or default_uri()
    now = time.time()
    rows = list_runs(open_tracking(uri), uri, None if everything else experiment, limit, now, headline_of)
    if as_json:
        typer.echo(json.dumps({"runs": [row.values() for row in rows]}, indent=1))
        return
    print_runs(rows, now, uri, _console(WIDTH), label, experiments=everything)


@app.command(short_help="Compare scores of runs, baselines and publications.")
def leaderboard(
    benchmark: Annotated[
        str | None, typer.Argument(metavar="[BENCHMARK]", help="Only this one  [default: all with scores]")
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "hvc",
    everything: Annotated[bool, typer.Option("--all", help="The runs of all experiments.")] = False,
    tracking_uri: TrackingUri = None,
    limit: Annotated[int, typer.Option(help="Rows of a table at most, on the terminal.", min=1)] = 30,
    csv: Annotated[Path | None, typer.Option(help="Write all rows to this file, too.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures to this file, too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank runs, baselines and published figures: one table per benchmark, protocol and set of files.

    A run stands with the best of its evaluated steps. The page is one file that needs no network: it
    sorts, filters, and opens rows to scores per sequence, curves and pictures.
    """
    import time

    from rich.console import Console

    from hvc.base.addresses import public
    from hvc.base.files import write_atomic
    from hvc.evaluation.leaderboard.board import board_of, need_benchmark
    from hvc.evaluation.leaderboard.page import page
    from hvc.evaluation.leaderboard.runs import collect, pictures_from
    from hvc.evaluation.leaderboard.text import WIDTH, csv_text, print_board
    from hvc.pretrain.tracking.runs import open_tracking
    from hvc.pretrain.tracking.tracking_uri import default_uri

    uri = tracking_uri or default_uri()
    with Console(stderr=True).status("asking MLflow"):
        client = open_tracking(uri)
        measured, unscored = collect(
            client, uri, None if everything else experiment, reports=html is not None or as_json
        )
    need_benchmark(benchmark, measured)
    board = board_of(measured, unscored, benchmark)
    if csv is not None:
        write_atomic(csv, csv_text(board))
    if html is not None:
        write_atomic(html, page(board, public(uri), pictures_from(client, uri), time.time()))
    if as_json:
        typer.echo(json.dumps(board.values(), indent=1))
        return
    board = board_of(measured, unscored, benchmark, published=False)
    print_board(board, public(uri), _console(WIDTH), limit, all_published=benchmark is not None)


@app.command(short_help="What you submitted: state, node, step, time left.")
def jobs(
    job: Annotated[
        str | None,
        typer.Argument(metavar="[JOB]", help="A job, or a pipeline or sweep by its name  [default: all]"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All submissions, not those of the last day only; every task.")
    ] = False,
    folders: JobFolders = None,
    watched: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=1)] = 10.0,
    as_json: AsJson = False,
) -> None:
    """List what you submitted to Slurm, newest first: state, node, attempt, step, images/s, time left.

    Slurm is asked once; steps come from the runs' own journals. Where Slurm's controller is away the
    folders of the submissions say what they know.
    """
    import time

    from hvc.slurm.job_choice import choose_all
    from hvc.slurm.jobs import list_jobs
    from hvc.slurm.jobs_text import WIDTH, print_jobs

    if watched and as_json:
        raise UsageError("--watch is for people; ask again with --json when you need it again")
    console = _console(WIDTH)
    while True:
        found = _submissions(folders)
        if job is not None:
            found = [(one.folder, one.submission) for one in choose_all(job, found)]
        listing = list_jobs(found)
        now = time.time()
        shown = listing if everything or job is not None else listing.recent(now)
        if as_json:
            typer.echo(json.dumps(shown.values(), indent=1))
            return
        if watched:
            console.clear()
            console.print(f"{time.strftime('%H:%M:%S')}, every {interval:.0f} s; Ctrl-C ends\n")
        print_jobs(shown, now, console, everything)
        if not watched:
            return
        time.sleep(interval)


@app.command(short_help="Logs of a job; the rank that failed first.")
def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    rank: Annotated[
        int | None, typer.Option(help="Whose log  [default: the rank that failed first, else 0]", min=0)
    ] = None,
    attempt: Annotated[int | None, typer.Option(help="Which attempt  [default: the last]", min=1)] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", help="Last lines to show.", min=1)] = 60,
    folders: JobFolders = None,
    as_json: AsJson = False,
) -> None:
    """Show the end of a job's log: what failed first, then the end of that rank's log.

    Logs are kept per attempt and rank; nothing is overwritten. Of an array without a task (`7`, not
    `7_3`) the first task that failed is shown.
    """
    from hvc.slurm.job_logs import Follower, excerpts
    from hvc.slurm.jobs import list_jobs

    chosen = _job(job, folders)
    found = excerpts(chosen, rank, attempt, lines)
    if as_json:
        typer.echo(json.dumps({"logs": [vars(one) for one in found]}, indent=1, default=str))
        return
    for one in found:
        typer.echo(f"==> {one.title}: {one.path}\n{one.text.rstrip()}")
    if not follow:
        return

    def ended() -> bool:
        (group,) = list_jobs([(chosen.folder, chosen.submission)]).groups
        return not any(row.state.alive for row in group.rows if chosen.means(row))

    shown = found[-1].path
    for path, text in Follower(chosen, rank, ended).pieces():
        if path != shown:
            typer.echo(f"==> {path}")
            shown = path
        typer.echo(text, nl=False)


@app.command(short_help="End a job for good; it saves first.")
def cancel(
    job: Job,
    at_once: Annotated[
        bool, typer.Option("--now", help="End its processes; don't wait for the end of a step.")
    ] = False,
    folders: JobFolders = None,
    as_json: AsJson = False,
) -> None:
    """End a job for good: it saves at its next step and is not requeued. `hvc requeue` goes on with it.

    JOB may also be the name of a pipeline or sweep: all that waits or runs of it ends.
    """
    from hvc.slurm.job_choice import choose_all
    from hvc.slurm.operations import cancel_all

    _say(cancel_all(choose_all(job, _submissions(folders)), at_once), as_json)


@app.command(short_help="Begin a job's next attempt, whether it runs or has ended.")
def requeue(job: Job, folders: JobFolders = None, as_json: AsJson = False) -> None:
    """Let a job begin its next attempt, with the code and config that it was submitted with.

    One that runs saves at its next step and goes back into the queue. One that failed, was cancelled or
    gave up is submitted again, with the same folder and output; of an array what is not done yet.
    """
    from hvc.slurm.operations import requeue as requeue_job

    _say(requeue_job(_job(job, folders)), as_json)


@app.command(short_help="Let a training job go on with other nodes.")
def resize(
    job: Job,
    nodes: Annotated[int, typer.Option(help="Nodes from then on.", min=1)],
    folders: JobFolders = None,
    as_json: AsJson = False,
) -> None:
    """Let a training job go on with another number of nodes: it saves at its next step and is requeued.

    The order of samples does not change with it.
    """
    from hvc.slurm.operations import resize as resize_job

    _say(resize_job(_job(job, folders), nodes), as_json)


@submit_app.command("shard")
def submit_shard(
    source: Layout,
    places: Places,
    cluster: Cluster,
    name: DatasetName = None,
    target_mb: TargetMb = 100.0,
    min_shards: MinShards = 1,
    order: Order = "shuffled",
    seed: Seed = 0,
    check: Check = "full",
    max_side: MaxSide = None,
    quality: Quality = None,
    extras: With = "",
    dedupe: Dedupe = False,
    fps: Fps = None,
    stride: Stride = None,
    max_bad: MaxBad = "0.01",
    workers: Workers = 0,
    parts: Annotated[
        int, typer.Option(help="Tasks of a job array that share the work; a last job joins it.", min=1)
    ] = 1,
    dry_run: DryRun = False,
    unchecked: Unchecked = False,
    as_json: AsJson = False,
) -> None:
    """Submit `hvc shard` to a cluster, as one job or as an array of parts and a job that joins them."""
    config = _shard_config(**locals())  # every parameter, by its name
    _submit_parts("shard", config, parts, cluster, dry_run, unchecked, as_json)


@submit_app.command("train")
def submit_train(
    recipe: Recipe,
    cluster: Cluster,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    unchecked: Unchecked = False,
    as_json: AsJson = False,
) -> None:
    """Submit `hvc train` to a cluster: N nodes x M tasks, one process per task."""
    from hvc.pretrain.recipe import TrainConfig

    _submit("train", TrainConfig.load(recipe, overrides), cluster, dry_run, unchecked, as_json)


@submit_app.command("evaluate")
def submit_evaluate(
    checkpoint: Checkpoint,
    benchmark: Benchmark,
    data: Data,
    cluster: Cluster,
    overrides: Overrides = None,
    merge: Merge = None,
    tracking_uri: TrackingUri = None,
    output: Results = None,
    parts: Annotated[
        int,
        typer.Option(help="Tasks of a job array that share the sequences; a last job scores.", min=1),
    ] = 1,
    dry_run: DryRun = False,
    unchecked: Unchecked = False,
    as_json: AsJson = False,
) -> None:
    """Submit `hvc evaluate` to a cluster, as one job or as an array of parts and a job that scores.

    `runs:/ID` and aliases mean the checkpoint of now, whenever the job begins.
    """
    if not dry_run:
        from hvc.slurm.cluster import ClusterConfig

        tracking_uri = tracking_uri or ClusterConfig.load(cluster).mlflow
        from hvc.evaluation.trunks.resolve import pinned, warning_before_waiting
        from hvc.evaluation.trunks.tracked import tracking_uri as uri_of

        uri = uri_of(tracking_uri, checkpoint)
        checkpoint, merge = pinned(checkpoint, uri), merge and pinned(merge, uri)
        for name in filter(None, (checkpoint, merge)):
            if words := warning_before_waiting(name, uri):
                typer.echo(f"warning: {name}: {words}", err=True)
    config = _evaluate_config(
        checkpoint, benchmark, data, overrides, tracking_uri, output, merge, parts=parts
    )
    _submit_parts("evaluate", config, parts, cluster, dry_run, unchecked, as_json)


@submit_app.command("pipeline", short_help="Submit shard -> train -> evaluate: what is not done yet.")
def submit_pipeline_(
    pipeline: Annotated[Path, typer.Argument(help="Pipeline (YAML), see configs/pipeline.yaml.")],
    overrides: Overrides = None,
    cluster: DefaultCluster = None,
    dry_run: DryRun = False,
    unchecked: Unchecked = False,
    as_json: AsJson = False,
) -> None:
    """Submit the stages of a pipeline, each to begin when what it needs is done, and a report at the end.

    What is done already, by the digests of configs and inputs, is left out, and so is what is under way:
    after a failure, a kill or a change the same command submits just what is missing.
    """
    from hvc.slurm.pipeline_config import PipelineConfig

    _submit_pipeline(PipelineConfig.load(pipeline, overrides), cluster, dry_run, unchecked, as_json)


@submit_app.command("sweep", short_help="Train and score every combination of some settings.")
def submit_sweep(
    recipe: Recipe,
    overrides: Overrides = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="KEY=A,B", help="Values of a setting; several make a grid."),
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluate",
            metavar="'BENCHMARK DATA [key=value ...]'",
            help="Score every member on this; may be given several times.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the sweep  [default: RECIPE's name-sweep]")] = None,
    cluster: DefaultCluster = None,
    evaluate_cluster: Annotated[
        Path | None, typer.Option(help="Cluster profile of evaluations  [default: --cluster]")
    ] = None,
    dry_run: DryRun = False,
    unchecked: Unchecked = False,
    as_json: AsJson = False,
) -> None:
    """Submit a training run per combination as one array, their evaluations, and a table of scores.

    A member that fails leaves the others alone. State and outputs are in pipelines/NAME; the same command
    again submits what is missing. `sweep:` in a pipeline does the same behind sharding.
    """
    from hvc.slurm.sweep_command import sweep_pipeline

    config = sweep_pipeline(recipe, overrides or [], grid or [], evaluate or [], name, evaluate_cluster)
    _submit_pipeline(config, cluster, dry_run, unchecked, as_json)


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


def _console(width: int) -> "Console":
    """For tables; a file or a pipe, which has no width of its own, gets this one."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = width
    return console


def _submissions(folders: list[Path] | None) -> "list[tuple[Path, Submission]]":
    from hvc.slurm.job_choice import all_below
    from hvc.slurm.jobs import find_submissions

    return all_below(folders) if folders else find_submissions()


def _job(text: str, folders: list[Path] | None) -> "Chosen":
    from hvc.slurm.job_choice import choose

    return choose(text, _submissions(folders))


def _say(done: "Done", as_json: bool) -> None:
    typer.echo(json.dumps(vars(done), indent=1) if as_json else done.text)


_NOT_OF_THE_STAGE = {"cluster", "dry_run", "unchecked", "as_json"}


def _shard_config(source: Source, places: list[str], extras: str, max_bad: str, **values: Any) -> "Config":
    """The config from a command's parameters; what is the command's own is left out."""
    from hvc.data_prep.shard_config import ShardConfig

    if len(places) < 2:
        raise UsageError(
            f"only {places[0]!r} after the source: give one input or more and then the output, e.g. "
            "`hvc shard folder photos dataset`"
        )
    *inputs, output = places
    config = {
        "inputs": [_shard_input(source, text) for text in inputs],
        "output": _absolute(output),
        "extras": [word.strip() for word in extras.split(",") if word.strip()],
        "max_bad": _number(max_bad),
        **{key: value for key, value in values.items() if key not in _NOT_OF_THE_STAGE},
    }
    return ShardConfig.parse(config, where="hvc shard")


def _shard_input(source: Source, text: str) -> dict[str, str]:
    prefix, colon, rest = text.partition(":")
    own = bool(colon) and prefix in set(Source)
    address = rest if own else text
    if not address.strip():
        raise UsageError(f"INPUT is empty (in {text!r}); give a folder, an archive or a video file")
    return {"source": prefix if own else str(source), "address": _absolute(address)}


def _absolute(address: str) -> str:
    # A path would make `s3:/bucket` of an address, and the current folder of an empty text.
    return address if "://" in address or not address.strip() else str(Path(address).absolute())


def _evaluate_config(
    checkpoint: str,
    benchmark: Benchmark,
    data: str,
    overrides: list[str] | None,
    tracking_uri: str | None,
    output: str | None,
    merge: str | None,
    **more: Any,
) -> "EvaluateConfig":
    from hvc.evaluation.evaluate_config import EvaluateConfig

    values: dict[str, Any] = {
        "checkpoint": checkpoint,
        "benchmark": str(benchmark),
        "data": _local_folder("DATA", data),
        "tracking_uri": tracking_uri,
        "output": output,
        "merge": merge,
        **{key: value for key, value in more.items() if key not in _NOT_OF_THE_STAGE},
    }
    return EvaluateConfig.parse(values, overrides, where="hvc evaluate")


def _local_folder(argument: str, text: str) -> str:
    # A path would make `s3:/bucket` of an address, and the current folder of an empty text.
    if "://" in text:
        raise UsageError(f"{argument} {text}: this is read from a folder; copy or mount it first")
    if not text.strip():
        raise UsageError(f"{argument} is empty; give a folder")
    return str(Path(text).absolute())


def _sequence_names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(
            "--sequences is empty; give names, e.g. `libby,blackswan`, or leave it out for all"
        )
    return names


def _number(text: str) -> int | float:
    try:
        return int(text) if text.removeprefix("-").isdecimal() else float(text)
    except ValueError:
        raise UsageError(f"--max-bad {text}: give a count (10) or a share (0.01)") from None


def _run_stage(name: str, config: "Config") -> Result:
    from hvc.slurm.stages import find, run_of

    return run_of(find(name))(config, StopFlag().listen(), Provenance())


def _submit(
    stage: str, config: "Config", cluster: Path, dry_run: bool, unchecked: bool, as_json: bool
) -> None:
    from hvc.slurm.cluster import ClusterConfig
    from hvc.slurm.submit import submit

    report = submit(stage, config, ClusterConfig.load(cluster), dry_run=dry_run, unchecked=unchecked)
    _show_submitted(report, [report.sbatch], config, dry_run, as_json)


def _submit_pipeline(
    config: "PipelineConfig", cluster: Path | None, dry_run: bool, unchecked: bool, as_json: bool
) -> None:
    from hvc.slurm.pipeline_submit import submit_pipeline
    from hvc.slurm.pipeline_text import report_lines

    file = str(cluster) if cluster else None
    report = submit_pipeline(config, file, dry_run=dry_run, unchecked=unchecked)
    if as_json:
        _show(report.values(), as_json)
    else:
        typer.echo("\n".join(report_lines(report)))


def _submit_parts(
    stage: str, config: "Config", parts: int, cluster: Path, dry_run: bool, unchecked: bool, as_json: bool
) -> None:
    if parts == 1:
        _submit(stage, config, cluster, dry_run, unchecked, as_json)
        return
    from hvc.slurm.cluster import ClusterConfig
    from hvc.slurm.parts import submit_parts

    report = submit_parts(
        stage, config, parts, ClusterConfig.load(cluster), dry_run=dry_run, unchecked=unchecked
    )
    _show_submitted(report, [report.sbatch, report.join_sbatch], config, dry_run, as_json)


def _show_submitted(
    report: Any, scripts: list[str], config: "Config", dry_run: bool, as_json: bool
) -> None:
    """What was submitted; of a dry run the scripts, and the config as comments that sbatch reads over."""
    for check in report.findings:
        typer.echo(f"{check.status}: {check.name}: {check.found}. {check.advice}", err=True)
    values = {key: value for key, value in vars(report).items() if key != "findings"}
    if as_json:
        _show(values | {"findings": [vars(check) for check in report.findings]}, as_json)
    elif dry_run:
        lines = [f"#   {line}" for line in config.to_yaml().splitlines()]
        typer.echo("\n".join(["\n\n".join(scripts), "# The stage's config, as it will be:", *lines]))
    else:
        _show({key: value for key, value in values.items() if "sbatch" not in key}, as_json)
        typer.echo(f"`hvc jobs` shows how it goes, `hvc logs {report.job_id}` what it says")


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
        words = str(error) if str(error).startswith("hvc ") else f"hvc: {error}"  # it names the command
        sys.stderr.write(f"{prefix}{words}\n")
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
