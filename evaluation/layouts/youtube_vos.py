"""YouTube-VOS 2018 and 2019 as downloaded: `valid`, and `valid_all_frames` beside it."""

import logging
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvc.base.errors import HvcError
from hvc.base.files import read_json
from hvc.evaluation.layouts.common import check_root, choose, folder_names, recognise, refuse_strangers
from hvc.evaluation.layouts.sequences import Sequence, list_frames

_log = logging.getLogger(__name__)

VIDEOS = {"2018": 474, "2019": 507}
"""Videos of the validation sets, which tell the years apart."""


@dataclass(frozen=True)
class _Places:
    valid: Path
    all_frames: Path | None
    """JPEGImages of the 30 frames a second, where they are."""

    @property
    def masks(self) -> Path:
        return self.valid / "Annotations"

    @property
    def fifth_frames(self) -> Path:
        return self.valid / "JPEGImages"

    @property
    def frames(self) -> Path:
        return self.all_frames or self.fifth_frames


def youtube_vos_names(folder: Path) -> list[str]:
    """The validation videos that meta.json lists; without it, those that are there."""
    return _listed(_places(folder))


def read_youtube_vos(folder: Path, names: Items[str] | None, year: str) -> list[Sequence]:
    """The validation videos; their ground truth is known to the server alone.

    Labels travel through all frames of `valid_all_frames/JPEGImages` where that is there, else through
    those of `valid/JPEGImages`; results are the frames of the latter (every fifth), or without it those
    that `valid/meta.json` lists. Masks lie in `valid/Annotations/NAME`, one wherever an object is first
    seen, so also at later frames. `folder` is what holds `valid`, or `valid` itself.

    Raises HvcError that says what was expected where, and when this is the other year's set.
    """
    places = _places(folder)
    listed, there = _listed(places), folder_names(places.masks)
    for other, count in VIDEOS.items():
        if len(listed) == count and other != year:
            raise HvcError(f"{places.valid} has the {count} videos of {other}: take youtube-vos-{other}")
    chosen = choose(names, listed, there, places.masks)
    meta = _meta(places)
    return [_sequence(places, name, meta.get(name, {}).get("objects", {})) for name in chosen]


def youtube_vos_coarse(folder: Path) -> str | None:
    """What to say when labels cannot travel through all 30 frames a second."""
    if _places(folder).all_frames is not None:
        return None
    return (
        f"{folder} has no valid_all_frames: labels travel through every fifth frame only, and scores are "
        "not comparable with others; download valid_all_frames, too, and put it beside valid"
    )


def _places(folder: Path) -> _Places:
    above = (folder / "valid").is_dir()
    valid = folder / "valid" if above else folder
    is_other = not above and recognise(folder) is not None
    title = "YouTube-VOS"
    if is_other or not (valid / "Annotations").is_dir():
        check_root(folder, title, ["valid/Annotations"], {"train": "the validation set is missing"})
    here = folder.absolute()  # `.` has no name
    roots = [folder] if above else [here.parent] if here.name == "valid" else []
    candidates = [
        root / part / "JPEGImages"
        for root in roots
        for part in ("valid_all_frames", "all_frames/valid_all_frames")
    ]
    places = _Places(valid, next((path for path in candidates if path.is_dir()), None))
    if not places.frames.is_dir():
        wanted = " or ".join(str(path) for path in [*candidates[:1], places.fifth_frames])
        raise HvcError(f"{folder} has masks but no frames: expected {wanted}")
    return places


def _meta(places: _Places) -> dict[str, Any]:
    meta = read_json(places.valid / "meta.json") or {}
    videos = meta.get("videos", {})
    return videos if isinstance(videos, dict) else {}


def _listed(places: _Places) -> list[str]:
    return sorted(_meta(places)) or folder_names(places.masks)


def _sequence(places: _Places, name: str, objects: dict[str, Any]) -> Sequence:
    frames = list_frames(places.frames / name)
    index_of = {path.stem: index for index, path in enumerate(frames)}
    folder = places.masks / name
    refuse_strangers(frames, folder)
    masks = {index_of[path.stem]: path for path in folder.glob("[!.]*.png")}
    if not masks:
        raise HvcError(f"video {name}: expected the masks of its objects at {folder}/FRAME.png")
    for number, known in objects.items():
        start = folder / f"{min(known['frames'])}.png" if known.get("frames") else None
        if start is not None and not start.is_file():
            _log.warning("video %s: object %s starts at %s, which is missing", name, number, start)
    written = _written(places, name, objects, index_of)
    kept = frames if written is None else frames[: max(written) + 1]
    return Sequence(
        name,
        kept,
        {index: masks[index] for index in sorted(masks) if index < len(kept)},
        [None] * len(kept),
        single_object=False,
        written=None if written == frozenset(range(len(kept))) else written,
    )


def _written(
    places: _Places, name: str, objects: dict[str, Any], index_of: dict[str, int]
) -> frozenset[int] | None:
    if places.all_frames is None:
        return None
    if places.fifth_frames.is_dir():
        stems = [path.stem for path in list_frames(places.fifth_frames / name)]
    else:
        stems = sorted({stem for known in objects.values() for stem in known.get("frames", [])})
    if not stems:
        raise HvcError(
            f"video {name}: which of its frames are results? Expected {places.fifth_frames / name}, or "
            f"its frames in {places.valid / 'meta.json'}"
        )
    absent = [stem for stem in stems if stem not in index_of]
    if absent:
        raise HvcError(f"video {name}: expected frame {places.frames / name / absent[0]}.jpg")
    return frozenset(index_of[stem] for stem in stems)
