"""JHMDB as downloaded: Rename_Images, joint_positions and splits, each by class of action."""

from collections.abc import Sequence as Items
from pathlib import Path

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.common import check_root, choose, folder_names
from hvc.evaluation.layouts.joint_files import count_joint_frames
from hvc.evaluation.layouts.sequences import Sequence, list_frames

_TEST = "2"
"""What a line of a split says of a clip for testing; 1 is for training, 0 for neither."""


def jhmdb_names(folder: Path) -> list[str]:
    """The clips of the test set of split 1; none without splits: what is scored then is some clips."""
    _there(folder)
    return _test_clips(folder) or []


def read_jhmdb(folder: Path, names: Items[str] | None = None) -> list[Sequence]:
    """The test clips of split 1: Rename_Images/CLASS/CLIP/*.png, joint_positions/CLASS/CLIP/*.mat.

    Frames after the last one with joints are left out: nothing of them is scored. Raises HvcError that
    says what was expected where.
    """
    there = _there(folder)
    listed = _test_clips(folder)
    if listed is None:
        if names is None:
            raise HvcError(
                f"expected {folder / 'splits'}/CLASS_test_split1.txt: without it training clips would "
                "count; download splits.zip, or name the clips (sequences=[...]; hvc score: --sequences)"
            )
        listed = []
    chosen = choose(names, listed, there, folder / "Rename_Images")
    return [_sequence(folder, there[name], name) for name in chosen]


def _there(folder: Path) -> dict[str, str]:
    """Clip -> class of action."""
    check_root(folder, "JHMDB", ["Rename_Images", "joint_positions"])
    images = folder / "Rename_Images"
    return {clip: action for action in folder_names(images) for clip in folder_names(images / action)}


def _test_clips(folder: Path) -> list[str] | None:
    files = sorted((folder / "splits").glob("[!.]*_test_split1.txt"))
    lines = [line.split() for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    clips = [words[0].removesuffix(".avi") for words in lines if words[1:] == [_TEST]]
    return clips if files else None


def _sequence(folder: Path, action: str, name: str) -> Sequence:
    frames = list_frames(folder / "Rename_Images" / action / name, (".png",))
    joints = folder / "joint_positions" / action / name / "joint_positions.mat"
    count = count_joint_frames(joints)
    if count > len(frames):
        raise HvcError(
            f"{joints} has joints of {count} frames, but there are {len(frames)} in {frames[0].parent}"
        )
    kept = frames[:count]
    return Sequence(name, kept, {}, [None] * len(kept), single_object=False, joints=joints)
