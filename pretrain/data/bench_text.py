"""The figures of `hvc bench-data` as text for people."""

from collections.abc import Iterator

from hvc.pretrain.data.bench_figures import Report, Stage, Stream

_ABOUT = {
    "read": "encoded images, checked by CRC-32",
    "decode": "encoded to RGB",
    "cut views": "two views per image, resized on the CPU",
    "pack views": "or: copied out, to be resized on the GPU",
}


def lines(report: Report, gpu_images_per_second: float) -> list[str]:
    """The report, about 30 lines."""
    return [
        f"{report.address}: {report.samples:,} samples of {report.stages[0].mean_bytes / 1e3:.0f} kB",
        *([f"{report.bad} corrupt samples met; `hvc verify` names them"] if report.bad else []),
        "",
        f"{'one core, alone':<18} {'samples/s':>10} {'MB/s':>8} {'up to here':>11}",
        *(_stage_line(stage) for stage in report.stages),
        "",
        f"{_stream_head(report):<30} {'samples/s':>10} {'MB/s':>8}   "
        f"GPU of {gpu_images_per_second:,.0f} images/s waits",
        *(line for each in report.streams for line in _stream_lines(each, report, gpu_images_per_second)),
        "",
        *_advice(report, gpu_images_per_second),
        "",
        *report.quality,
    ]


def _stage_line(stage: Stage) -> str:
    cumulated = f"{stage.cumulated:>11,.0f}" if stage.cumulated else f"{'':>11}"
    figures = f"{stage.rate:>10,.0f} {stage.mb_per_second:>8,.0f} {cumulated}"
    return f"{stage.name:<18} {figures}   {_ABOUT[stage.name]}"


def _stream_head(report: Report) -> str:
    ranks = f", rank 0 of {report.ranks}" if report.ranks > 1 else ""
    return f"{report.workers} loader processes{ranks}"


def _stream_lines(each: Stream, report: Report, gpu: float) -> Iterator[str]:
    where = "views cut on the GPU" if each.stage.name.endswith("packed") else "views cut on the CPU"
    rate, waits = each.stage.rate, each.waiting(gpu)
    yield f"{where:<30} {rate:>10,.0f} {each.stage.mb_per_second:>8,.0f}   {waits:.0%} of the time"
    parts = [f"first batch after {each.first_batch_seconds:.1f} s", f"{each.memory_mb:,.0f} MB per process"]
    if report.remote:
        parts.append(f"{each.requests:,.0f} requests/s, {each.retries} retries")
    if each.hit_rate is not None:
        parts.append(f"cache hits {each.hit_rate:.0%}")
    yield f"  {'; '.join(parts)}"


def _advice(report: Report, gpu: float) -> Iterator[str]:
    """What to change when a GPU would wait."""
    best = max(report.streams, key=lambda each: each.stage.rate)
    if best.waiting(gpu) < 0.02:
        yield f"Loading keeps up with {gpu:,.0f} images/s per GPU."
        return
    yield f"A GPU that takes {gpu:,.0f} images/s would wait. What helps, the cheapest first:"
    processes = max(report.workers, 1)
    alone = report.stages[3].cumulated or best.stage.rate
    if best.stage.rate < 0.7 * processes * alone:
        yield (
            f"- {processes} processes give {best.stage.rate / alone:.1f} times what one core gives: cores "
            "are short (ask for more CPUs per GPU), or the storage is slow"
        )
    else:
        count = f"{gpu / alone:.0f}"
        yield f"- more loader processes: `workers`, about {count} per GPU, if the node has the cores"
    if report.stages[0].rate < 2 * report.stages[1].rate:
        yield "- reading is slow beside decoding: " + (
            "more `stream.fetch_threads`, larger blocks (`stream.block`), a node-local `stream.cache`"
            if report.remote
            else "copy the shards to a disk of the node, or use larger blocks (`stream.block`)"
        )
    yield "- let the GPU cut the views (`views.cut: device`), which leaves decoding to the CPU"
    yield "- smaller images: shard again with `--max-side`, e.g. 400, as views have 256 pixels"
