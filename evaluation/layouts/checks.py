"""Everything that can be wrong with the files of a video, found before hours are spent on it."""

from collections.abc import Iterable

from hvc.base.errors import HvcError
from hvc.evaluation.layouts.common import raise_all
from hvc.evaluation.layouts.decode import check_size
from hvc.evaluation.layouts.images import picture_size
from hvc.evaluation.layouts.joint_files import read_joint_positions
from hvc.evaluation.layouts.masks import read_mask
from hvc.evaluation.layouts.sequences import Sequence, object_ids


def check_sequences(sequences: Iterable[Sequence]) -> None:
    """Raise HvcError with a line for every sequence that cannot be labelled, or scored where it should be.

    Masks, annotations and joints are read in full, of frames only the header.
    """
    problems = []
    for sequence in sequences:
        try:
            check_sequence(sequence)
        except HvcError as error:
            problems.append(str(error))
    raise_all(problems)


def check_sequence(sequence: Sequence) -> None:
    """Raise HvcError that names the sequence and the file when one is damaged or of another size."""
    start = f"sequence {sequence.name}: "
    try:
        _check(sequence)
    except HvcError as error:
        raise HvcError(start + str(error).removeprefix(start)) from None


def _check(sequence: Sequence) -> None:
    first = sequence.frames[0]
    size = picture_size(first)
    for path in sequence.frames:
        check_size(picture_size(path), size, path, first)
    if sequence.joints is not None:
        read_joint_positions(sequence.joints)
        return
    annotations = [path for path in sequence.annotations if path is not None and sequence.annotated]
    for path in dict.fromkeys([*sequence.masks.values(), *annotations]):
        height, width = read_mask(path).shape
        check_size((height, width), size, path, first)
    object_ids(sequence)
    if sequence.annotated and sequence.classes is None and len(sequence.results) < 3:
        raise HvcError(
            f"{len(sequence.results)} annotated frames: the first and the last are not scored, so 3 are "
            "needed; add frames, or remove annotations to have it labelled only"
        )
