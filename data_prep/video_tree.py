"""Video files as trees of frames: listed without decoding, decoded in order, one frame at a time."""

import io
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvc.base.errors import UsageError
from hvc.data_prep.catalog import Record
from hvc.data_prep.folder_tree import FolderTree
from hvc.data_prep.layouts import real_files, suffix
from hvc.data_prep.tree import Entry, Place, unreadable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SUFFIXES = frozenset(
    {
        ".mp4",
        ".m4v",
        ".mov",
        ".3gp",
        ".avi",
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".m2ts",
        ".wmv",
        ".flv",
    }
)
"""Endings, in any case, of the files that are taken for videos."""

_OPTIONS = {  # a file that is called a video may be a playlist, which would make us fetch what it names
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf,flv",
}
_MAX_PIXELS = "178956970"  # of a frame; where Pillow draws the line, too
_QUALITY = 95
_BYTES_PER_PIXEL = 0.4  # of a JPEG of that quality, roughly: for the size of shards
_BY_TIME, _BY_COUNT = 0, 1  # Place.method: what Place.offset counts


@dataclass(frozen=True)
class FrameOptions:
    """Which frames of a video: every `stride`-th, or `fps` a second at most; all, if neither is given."""

    fps: float | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and self.stride is not None:
            raise UsageError("give frames per second or a stride, not both")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UsageError(f"frames per second are more than 0 (got {self.fps})")
        if self.stride is not None and self.stride < 1:
            raise UsageError(f"a stride is 1 or more (got {self.stride})")

    def choose(self, times: Sequence[float]) -> list[int]:
        """Numbers of the frames to take, of frames at these seconds (rising)."""
        if self.fps is None:
            return list(range(0, len(times), self.stride or 1))
        chosen, slot = [], -1
        for number, time in enumerate(times):
            this = int(time * self.fps + 1e-6)  # the first frame of every 1/fps seconds
            if this > slot:
                chosen.append(number)
                slot = this
        return chosen


@dataclass(frozen=True)
class _Listing:
    """Frames of a video in display order: places, seconds from the first, and what ended the list."""

    places: list[Place]
    times: list[float]
    pixels: int
    error: str | None = None


class VideoTree:
    """A local video file, or all video files below a local folder.

    Frames are JPEG files `NAME.mp4/00000120.jpg`, the number in display order; a rotation that the
    video states is applied. A file that cannot be read (to its end) is listed once under its own name:
    reading that gives the reason for its rejection.
    """

    def __init__(self, address: str, options: FrameOptions | None = None) -> None:
        _need_av()
        self.address = address
        self._options = options or FrameOptions()
        path = os.path.abspath(address)  # noqa: PTH100
        self._file = "" if Path(path).is_dir() else Path(path).name
        self._root = str(Path(path).parent) if self._file else path
        self._open: _Playback | None = None

    def entries(self) -> Iterator[Entry]:
        return iter(sorted(record.entry for record in self.records()))

    def records(self) -> Iterator[Record]:
        """The chosen frames, by video and number."""
        for name in self._names():
            listing = _list(f"{self._root}/{name}")
            size = int(listing.pixels * _BYTES_PER_PIXEL)
            if listing.error is not None:
                yield Record(name, 0, video=name)
            for number in self._options.choose(listing.times):
                yield Record(
                    f"{name}/{number:08d}.jpg",
                    size,
                    listing.places[number],
                    video=name,
                    frame=number,
                    time=listing.times[number],
                )

    def read(self, entry: Entry) -> bytes:
        if entry.place is None:
            raise unreadable(_list(f"{self._root}/{entry.path}").error or "not a frame of a video")
        path = f"{self._root}/{entry.path.rpartition('/')[0]}"
        if self._open is None or self._open.path != path or self._open.process != os.getpid():
            self._open = _Playback(path)
        try:
            return _jpeg(self._open.frame(entry.place))
        except OSError:
            self._open = None  # how a decoder goes on after an error depends on what it has seen before
            raise

    def _names(self) -> Iterator[str]:
        if self._file:
            yield self._file
            return
        for entry in real_files(FolderTree(self._root)):
            if suffix(entry.path) in SUFFIXES:
                yield entry.path

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}


class _Playback:
    """An open video that gives frames in rising order cheaply, and any other by going to its key frame.

    What a frame looks like never depends on what was read before: it is decoded from its own key frame
    on, or by going on from a frame that was.
    """

    def __init__(self, path: str) -> None:
        self.path, self.process = path, os.getpid()
        self._frames: Iterator[VideoFrame]
        self._last: int | None  # time stamp of the frame that was decoded last
        self._count: int  # frames decoded since the start
        self._start()

    def frame(self, place: Place) -> "VideoFrame":
        """The frame at a place; OSError with the reason and the time if it cannot be decoded."""
        import av

        try:
            found = self._by_time(place) if place.method == _BY_TIME else self._by_count(place.offset)
        except av.FFmpegError as error:
            raise unreadable(f"cannot be decoded{self._when(place)}: {error.strerror}") from None
        if found is None:
            raise unreadable(f"the video has no frame{self._when(place)}, although it announces one")
        if found.is_corrupt:
            raise unreadable(f"damaged{self._when(place)}")
        return found

    def _by_time(self, place: Place) -> "VideoFrame | None":
        target, key = place.offset, place.packed
        if self._last is None or target <= self._last or key > self._last:
            self._container.seek(key, stream=self._stream)
            self._frames, self._last = self._container.decode(self._stream), None
            first = next(self._frames, None)
            if first is None or first.pts is None or first.pts > key:
                self._start()  # the file's own table of key frames leads astray: from the start, then
            else:
                self._last = first.pts
                if first.pts == target:
                    return first
        for frame in self._frames:
            self._last = frame.pts if frame.pts is not None else self._last
            if self._last is not None and self._last >= target:
                return frame if frame.pts == target else None
        return None

    def _by_count(self, number: int) -> "VideoFrame | None":
        if number < self._count:
            self._start()
        for frame in self._frames:
            self._count += 1
            if self._count > number:
                return frame
        return None

    def _start(self) -> None:
        self._container, self._stream = _open(self.path)
        self._frames = self._container.decode(self._stream)
        self._last, self._count = None, 0

    def _when(self, place: Place) -> str:
        if place.method == _BY_COUNT:
            return f" number {place.offset}"
        seconds = (place.offset - (self._stream.start_time or 0)) * (self._stream.time_base or 0)
        return f" at {float(seconds):.3f} s"


def _need_av() -> Any:
    try:
        import av
    except ImportError:
        raise UsageError("videos are read with PyAV, which is missing: pip install 'hvc[video]'") from None
    return av


def _open(path: str) -> "tuple[InputContainer, VideoStream]":
    """The first video stream of a file; OSError when there is none."""
    import av

    try:
        container = av.open(path, container_options=_OPTIONS)
    except (av.FFmpegError, OSError) as error:
        raise unreadable(f"cannot be opened as a video: {error.strerror}") from None
    if not container.streams.video:
        raise unreadable("a file without a video stream")
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # one frame in memory at a time; processes make it fast
    stream.codec_context.options = {"max_pixels": _MAX_PIXELS}
    return container, stream


def _list(path: str) -> _Listing:
    """All frames of a video, from its packets' headers: nothing is decoded."""
    import av

    try:
        container, stream = _open(path)
    except OSError as error:
        return _Listing([], [], 0, error.strerror)
    packets: list[tuple[int | None, bool]] = []
    error_text = None
    with container:
        try:
            for packet in container.demux(stream):
                if packet.is_corrupt and error_text is None:
                    error_text = f"damaged or cut short at frame {len(packets)}"
                if packet.size and not packet.is_discard:
                    packets.append((packet.pts, packet.is_keyframe))
        except (av.FFmpegError, OSError) as error:
            error_text = f"cannot be read beyond frame {len(packets)}: {error.strerror}"
        if error_text is None and _is_cut_short(path, stream):
            error_text = f"cut short after frame {len(packets) - 1}"
        if not packets and error_text is None:
            error_text = "a video without frames"
        places, times = _places(packets, stream)
        return _Listing(places, times, stream.width * stream.height, error_text)


def _is_cut_short(path: str, stream: "VideoStream") -> bool:
    """Whether the file's own table of frames, where it has one, points beyond its end."""
    entries = getattr(stream, "index_entries", ())  # not in old versions of PyAV
    return any(entry.pos + entry.size > Path(path).stat().st_size for entry in entries)


def _places(
    packets: list[tuple[int | None, bool]], stream: "VideoStream"
) -> tuple[list[Place], list[float]]:
    stamps = sorted({pts for pts, _ in packets if pts is not None})
    if any(pts is None for pts, _ in packets):  # old formats that tell the decoding order alone
        rate = float(stream.average_rate or 25)
        numbers = range(len(packets))
        return [Place(number, 0, _BY_COUNT) for number in numbers], [number / rate for number in numbers]
    keys = sorted({pts for pts, is_key in packets if is_key and pts is not None}) or stamps[:1]
    before = (max(bisect_right(keys, pts) - 1, 0) for pts in stamps)
    places = [Place(pts, keys[key], _BY_TIME) for pts, key in zip(stamps, before, strict=True)]
    base = stream.time_base or 0
    return places, [float((pts - stamps[0]) * base) for pts in stamps]


def _jpeg(frame: "VideoFrame") -> bytes:
    from PIL import Image

    turns = {
        90: Image.Transpose.ROTATE_90,
        180: Image.Transpose.ROTATE_180,
        270: Image.Transpose.ROTATE_270,
    }
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    turn = turns.get(frame.rotation % 360)
    if turn is not None:
        image = image.transpose(turn)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
