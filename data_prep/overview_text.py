"""An overview as lines for a terminal."""

from collections.abc import Iterable, Iterator

from hvc.data_prep.overview import Overview, Spread
from hvc.data_prep.video_frames import Frame

_BAR = 40  # characters
_EIGHTHS = " ▏▎▍▌▋▊▉"


def overview_lines(seen: Overview) -> Iterator[str]:
    """Counts, spreads and a histogram of image sizes."""
    yield f"{seen.name}  {seen.dataset}"
    yield f"digest      {seen.digest}"
    sources = ", ".join(seen.made.get("sources", ())) or seen.source
    yield f"source      {sources}, order {seen.made['order']}, seed {seen.made['seed']}"
    yield f"made by     {_options(seen)}"
    yield (
        f"found       {seen.found:,} = {seen.samples:,} samples + {seen.rejected:,} rejected "
        f"+ {seen.duplicates:,} duplicates"
    )
    per_shard = f"{seen.samples_per_shard.smallest:,.0f} to {seen.samples_per_shard.largest:,.0f}"
    yield f"shards      {seen.shards:,}, {in_bytes(seen.bytes)}, {per_shard} samples each"
    if seen.classes:
        yield f"classes     {seen.classes:,}"
    if seen.frames_per_video is not None:
        yield f"videos      {seen.videos:,}; frames per video: {_spread(seen.frames_per_video)}"
    yield ""
    every = "all" if seen.looked_at == seen.samples else f"{seen.looked_at:,} of {seen.samples:,}"
    yield f"images ({every} samples)"
    yield f"  bytes     {_spread(seen.image_bytes)}"
    yield f"  width     {_spread(seen.width)}"
    yield f"  height    {_spread(seen.height)}"
    yield f"  formats   {_counted(seen.formats)}; grey {seen.grey:,}"
    yield f"  shapes    {_counted(seen.shapes)}; to be turned by EXIF {seen.turned:,}"
    yield ""
    yield from _histogram(seen)
    if seen.first_rejects:
        yield ""
        yield f"rejected (the first of {seen.rejected:,})"
        yield from (f"  {line}" for line in seen.first_rejects)


def frame_lines(frames: Iterable[Frame]) -> Iterator[str]:
    """One line per frame, under a head."""
    yield f"{'sample':>9}  {'shard':<18} {'position':>8}  {'frame':>7}  {'time':>9}  path"
    for one in frames:
        number = "" if one.frame is None else one.frame
        time = "" if one.time is None else f"{one.time:.3f} s"
        place = f"{one.sample:>9}  {one.shard:<18} {one.position:>8}"
        yield f"{place}  {number:>7}  {time:>9}  {one.path}"


def in_bytes(size: float) -> str:
    """A size with a unit of powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB" if size < 999.5 else f"{size:,.0f} TB"


def _options(seen: Overview) -> str:
    shown = {
        key: value
        for key, value in seen.made.items()
        if key not in ("order", "seed", "sources", "input", "hvc") and value is not None
    }
    return f"hvc {seen.made['hvc']}" + "".join(f", {key}={value}" for key, value in shown.items())


def _spread(spread: Spread) -> str:
    names = ("min", "5%", "median", "mean", "95%", "max")
    numbers = (spread.smallest, spread.p5, spread.median, spread.mean, spread.p95, spread.largest)
    return "  ".join(f"{name} {number:,.0f}" for name, number in zip(names, numbers, strict=True))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _histogram(seen: Overview) -> Iterator[str]:
    yield "image size"
    most = max(count for _, _, count in seen.histogram)
    for low, high, count in seen.histogram:
        yield f"  {in_bytes(low):>7} to {in_bytes(high):>7} {_bar(count / most):<{_BAR}} {count:,}"


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
