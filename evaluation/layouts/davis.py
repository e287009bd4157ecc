"""DAVIS 2016 and 2017 as downloaded: JPEGImages/480p/NAME, Annotations/480p/NAME, ImageSets."""

from collections.abc import Sequence as Items
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.common import annotations_of, check_root, choose, folder_names, read_list, words
from hvc.evaluation.layouts.images import load_image
from hvc.evaluation.layouts.sequences import Sequence, list_frames

VAL_2016 = words(
    "blackswan bmx-trees breakdance camel car-roundabout car-shadow cows dance-twirl dog drift-chicane "
    "drift-straight goat horsejump-high kite-surf libby motocross-jump paragliding-launch parkour "
    "scooter-black soapbox"
)
VAL_2017 = sorted(
    VAL_2016
    + words("bike-packing dogs-jump gold-fish india judo lab-coat loading mbike-trick pigs shooting")
)
TEST_DEV_2017 = words(
    "aerobatics car-race carousel cats-car chamaleon deer giant-slalom girl-dog golf guitar-violin gym "
    "helicopter horsejump-stick hoverboard lock man-bike monkeys-trees mtb-race orchid people-sunset "
    "planes-crossing rollercoaster salsa seasnake skate-jump slackline subway tandem tennis-vest tractor"
)

_HIGHER = (
    "all published figures are of the 480p version; download that (for 2017: DAVIS-2017-trainval-480p.zip, "
    "DAVIS-2017-test-dev-480p.zip)"
)
_HINTS = {f"JPEGImages/{name}": _HIGHER for name in ("Full-Resolution", "1080p")}


def davis2016_names(folder: str | Path) -> list[str]:
    """The names on the validation list: the folder's own, else the official one."""
    return _names(Path(folder), VAL_2016, "480p/val", "2016/val")


def read_davis2016(folder: str | Path, names: Items[str] | None = None) -> list[Sequence]:
    """DAVIS 2016 val: masks of one object, 0 and 255.

    Args:
        folder: the dataset's root.
        names: the sequences wanted, in this order. By default those of the validation list
            (ImageSets/480p/val.txt or ImageSets/2016/val.txt) that are there; without a list, all,
            whose score is one of a subset unless they are the official 20.

    Raises HvcError that names the folder or file which is missing, or says that this is DAVIS 2017.
    """
    root = Path(folder)
    there = _there(root)
    listed = _listed(root, "480p/val", "2016/val") or there
    chosen = choose(names, listed, there, _images(root))
    sequences = [_annotated(root, name, single_object=True) for name in chosen]
    for sequence in sequences:
        _check_masks(sequence, "one object")
    return sequences


def davis2016_merged_names(folder: str | Path) -> list[str]:
    """The names of DAVIS 2016 val in a DAVIS 2017 folder."""
    return _names(Path(folder), VAL_2016, "2016/val", "480p/val")


def read_davis2016_merged(folder: str | Path, names: Items[str] | None = None) -> list[Sequence]:
    """The sequences of DAVIS 2016 val with the masks of DAVIS 2017, merged to one object when scored.

    That is how HVC's and its forerunners' DAVIS 2016 figures were made. Masks and thus scores differ
    from those of `read_davis2016`. Errors as there.
    """
    return _read_2017(Path(folder), names, VAL_2016, "2016/val", "480p/val", single_object=True)


def davis2017_names(folder: str | Path) -> list[str]:
    """The names of DAVIS 2017 val."""
    return _names(Path(folder), VAL_2017, "2017/val")


def read_davis2017(folder: str | Path, names: Items[str] | None = None) -> list[Sequence]:
    """DAVIS 2017 val: several objects, ids 1, 2, ... in palette masks of every frame.

    The list is ImageSets/2017/val.txt, or the official one where that is missing. Raises HvcError as
    `read_davis2016` does.
    """
    return _read_2017(Path(folder), names, VAL_2017, "2017/val", single_object=False)


def test_dev_names(folder: str | Path) -> list[str]:
    """The names of DAVIS 2017 test-dev."""
    return _names(Path(folder), TEST_DEV_2017, "2017/test-dev")


def read_test_dev(folder: str | Path, names: Items[str] | None = None) -> list[Sequence]:
    """DAVIS 2017 test-dev: first masks only, the rest is known to the server alone. Errors as there."""
    root = Path(folder)
    there = _there(root)
    listed = _listed(root, "2017/test-dev") or TEST_DEV_2017
    sequences = []
    for name in choose(names, listed, there, _images(root)):
        frames = list_frames(_images(root) / name)
        mask = root / "Annotations" / "480p" / name / f"{frames[0].stem}.png"
        if not mask.is_file():
            raise HvcError(f"sequence {name}: expected its first mask at {mask}; complete the dataset")
        sequences.append(Sequence(name, frames, {0: mask}, [None] * len(frames), single_object=False))
    return sequences


def _read_2017(
    root: Path, names: Items[str] | None, official: list[str], *lists: str, single_object: bool
) -> list[Sequence]:
    there = _there(root)
    chosen = choose(names, _listed(root, *lists) or official, there, _images(root))
    sequences = [_annotated(root, name, single_object) for name in chosen]
    for sequence in sequences:
        _check_masks(sequence, "several objects")
    return sequences


def _names(root: Path, official: list[str], *lists: str) -> list[str]:
    _there(root)
    return _listed(root, *lists) or official


def _images(root: Path) -> Path:
    return root / "JPEGImages" / "480p"


def _there(root: Path) -> list[str]:
    check_root(root, "DAVIS", ["JPEGImages/480p", "Annotations/480p"], _HINTS)
    return folder_names(_images(root))


def _listed(root: Path, *lists: str) -> list[str] | None:
    for path in (root / "ImageSets" / f"{name}.txt" for name in lists):
        if path.is_file():
            return list(dict.fromkeys(_sequence_name(entry) for entry in read_list(path)))
    return None


def _sequence_name(entry: str) -> str:
    """`blackswan`, or the first word of a line per frame: `/JPEGImages/480p/blackswan/00000.jpg`."""
    return PurePosixPath(entry).parent.name if "/" in entry else entry


def _annotated(root: Path, name: str, single_object: bool) -> Sequence:
    frames = list_frames(_images(root) / name)
    annotations = annotations_of(frames, root / "Annotations" / "480p" / name)
    return Sequence(name, frames, {0: annotations[0]}, list(annotations), single_object)


def _check_masks(sequence: Sequence, wanted: Literal["one object", "several objects"]) -> None:
    """HvcError when the first mask is of the other DAVIS: the same folders, but other masks and scores."""
    path = sequence.masks[0]
    image = load_image(path)
    if image.mode not in ("P", "L"):  # equal channels, as a few frames of DAVIS 2016 have them
        return
    values = set(np.unique(np.asarray(image)).tolist())
    if wanted == "one object" and (values - {0, 255}) and (image.mode == "P" or values - {0, 1, 255}):
        raise HvcError(
            f"{path} numbers its objects, as DAVIS 2017 does; DAVIS 2016 has masks of 0 and 255. Take "
            "davis2016-merged (the sequences of 2016) or davis2017"
        )
    if wanted == "several objects" and 255 in values and not values - {0, 255}:
        raise HvcError(
            f"{path} is a mask of 0 and 255, as DAVIS 2016 has them; DAVIS 2017 numbers its objects. Take "
            "davis2016, or download DAVIS-2017-trainval-480p.zip"
        )
