"""Pictures of an evaluation, for the run that it belongs to and for the leaderboard.

One sequence has a film strip, a moving picture and its scores over the frames; all of them have an
overview, worst first, and a sheet of features.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from hvc.evaluation.drawing.feature_sheet import Features, feature_sheet
from hvc.evaluation.drawing.overlay_video import write_video
from hvc.evaluation.drawing.overview import Cell, overview
from hvc.evaluation.drawing.scenes import Scene
from hvc.evaluation.drawing.score_curves import score_curves
from hvc.evaluation.drawing.strips import strip_of
from hvc.evaluation.layouts.sequences import Sequence as Video
from hvc.evaluation.metrics.measures import MAIN, label, main_curve, scored_frames

OVERVIEW, FEATURES = "overview.png", "features.png"


class Scored(Protocol):
    """Scores of an evaluation; in percent, by name of a sequence (per_object: NAME/ID)."""

    @property
    def per_sequence(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def per_object(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def curves(self) -> Mapping[str, Mapping[str, list[float]]]: ...


def draw(sequence: Video, labels: Path, summary: Scored | None, folder: Path) -> list[Path]:
    """Draw one sequence: NAME.png, a film strip; NAME.gif; NAME-scores.png, where there are scores.

    Args:
        sequence: with the truth, where there is one.
        labels: the folder of results, NAME/STEM.png or NAME.json in it.
        summary: scores; None where there is no truth to score against.
        folder: where the pictures go.

    Returns:
        The pictures' files. HvcError where frames or results are missing or damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scene, name = Scene(sequence, labels), sequence.name
    curves = summary.curves.get(name, {}) if summary else {}
    measure, values = _by_frame(curves, scene.results)
    files = [folder / f"{name}.png", folder / f"{name}.gif"]
    scores = summary.per_sequence.get(name, {}) if summary else {}
    heading = f"{name}   {_words(scores)}".rstrip()
    strip_of(scene, values, measure, heading).save(files[0])
    write_video(scene, values, measure, files[1])
    if summary and curves:
        prefix = f"{name}/"
        objects = {
            key.removeprefix(prefix): value
            for key, value in summary.per_object.items()
            if key.startswith(prefix)
        }
        files.append(folder / f"{name}-scores.png")
        score_curves(heading, curves, scene.results, objects).save(files[-1])
    return files


def draw_overview(
    sequences: Sequence[Video],
    labels: Path,
    summary: Scored,
    headline: str,
    folder: Path,
    title: str,
) -> list[Path]:
    """Draw all scored sequences on one sheet, worst first by `headline`: overview.png.

    Args:
        sequences: those without scores are left out.
        labels, summary, folder: as for `draw`.
        headline: the measure that orders them.
        title: what was evaluated on what.
    """
    cells = []
    for sequence in sequences:
        scores = summary.per_sequence.get(sequence.name, {})
        if headline in scores:
            curve = main_curve(summary.curves.get(sequence.name, {}))
            others = {name: value for name, value in scores.items() if name != headline}
            scene = Scene(sequence, labels)
            cells.append(Cell(scene, scores[headline], _words(others), curve[1] if curve else []))
    if not cells:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    overview(cells, f"{title}    worst {label(headline)} first").save(folder / OVERVIEW)
    return [folder / OVERVIEW]


def draw_features(sequences: Sequence[Video], features: Features, folder: Path) -> list[Path]:
    """Draw the features of first and last frames in colours: features.png.

    Args:
        sequences: to choose from.
        features: an image to its feature map, as propagation has it.
        folder: where the picture goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    videos = [(one.name, one.frames[0], one.frames[-1]) for one in sequences]
    feature_sheet(videos, features).save(folder / FEATURES)
    return [folder / FEATURES]


def _words(scores: Mapping[str, float]) -> str:
    """Scores that papers quote, in words: `J&F 65.6   J 61.2   F 70.1`."""
    return "   ".join(f"{label(name)} {scores[name]:.1f}" for name in MAIN if name in scores)


def _by_frame(curves: Mapping[str, list[float]], results: Sequence[int]) -> tuple[str, dict[int, float]]:
    """What a frame is judged by, and its values by the frame's index."""
    known = main_curve(curves)
    if known is None:
        return "", {}
    measure, values = known
    return measure, dict(zip(scored_frames(len(values), results), values, strict=False))
